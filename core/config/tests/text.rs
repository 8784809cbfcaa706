//! What a person reads: whole messages, as they are printed.

use evenkeel_config::parse;

fn rendered(text: &str) -> String {
    match parse(text, "evenkeel.toml") {
        Ok(loaded) => loaded.warnings.render(false),
        Err(found) => found.render(false),
    }
}

#[test]
fn an_unknown_key_is_shown_with_the_key_that_was_probably_meant() {
    let text = "[interface.tun0]\nkind = \"tun\"\n\n[director.web]\nbind = \"10.0.0.3:80/tcp\"\nschedular = \"wrr\"\n\
                server = [{ name = \"s1\", address = \"10.0.3.20:80\" }]\n";
    let expected = r#"error[unknown-key]: the key `schedular` is unknown in `director.web`
 --> evenkeel.toml:6:1
  |
6 | schedular = "wrr"
  | ^^^^^^^^^
  |
help: did you mean `scheduler`?
  |
6 - schedular = "wrr"
6 + scheduler = "wrr"
  |

evenkeel.toml: 1 error
"#;
    assert_eq!(rendered(text), expected, "\n{}", rendered(text));
}

#[test]
fn a_duplicate_binding_is_shown_at_both_places() {
    let server = "server = [{ name = \"s1\", address = \"10.0.3.20:80\" }]";
    let text = format!(
        "[interface.tun0]\nkind = \"tun\"\n[director.web]\nbind = \"10.0.0.3:80/tcp\"\n{server}\n\
         [director.shop]\nbind = \"10.0.0.3:80/tcp\"\n{server}\n"
    );
    let expected = r#"error[duplicate-binding]: the directors `web` and `shop` are both bound to `10.0.0.3:80/tcp`
 --> evenkeel.toml:7:8
  |
4 | bind = "10.0.0.3:80/tcp"
  |        ----------------- first here
...
7 | bind = "10.0.0.3:80/tcp"
  |        ^^^^^^^^^^^^^^^^^ again here
  |
  = help: give one of them another address, port or protocol, or put their real servers together

evenkeel.toml: 1 error
"#;
    assert_eq!(rendered(&text), expected, "\n{}", rendered(&text));
}

#[test]
fn errors_and_warnings_are_counted_at_the_end() {
    let text = "[interface.tun0]\nkind = \"tun\"\nmtu = 70000\n[director.web]\nbind = \"10.0.0.3:80/tcp\"\n";
    let expected = r#"error[out-of-range]: `interface.tun0.mtu` is `70000`, outside of 68 to 65535
 --> evenkeel.toml:3:7
  |
3 | mtu = 70000
  |       ^^^^^
  |
  = help: write a number from 68 to 65535

warning[no-servers]: the director `web` has no real server: it drops every new flow
 --> evenkeel.toml:4:11
  |
4 | [director.web]
  |           ^^^
  |
  = help: add a table `[[director.web.server]]`

evenkeel.toml: 1 error, 1 warning
"#;
    assert_eq!(rendered(text), expected, "\n{}", rendered(text));
}

#[test]
fn what_is_not_toml_is_shown_where_it_stops_to_be() {
    let text = "[interface.tun0]\nkind = tun\n";
    let expected = r#"error[syntax]: this is not TOML: invalid boolean, expected `true`
 --> evenkeel.toml:2:8
  |
2 | kind = tun
  |        ^^^
  |
help: put the text in double quotes
  |
2 - kind = tun
2 + kind = "tun"
  |

evenkeel.toml: 1 error
"#;
    assert_eq!(rendered(text), expected, "\n{}", rendered(text));
}

#[test]
fn colours_are_there_only_when_they_are_asked_for() {
    let found = parse("x = 1", "evenkeel.toml").unwrap_err();
    assert!(found.render(true).contains('\u{1b}'));
    assert!(!found.render(false).contains('\u{1b}'));
}

/// A file can not paint the terminal of whoever checks it.
#[test]
fn control_characters_of_the_file_never_reach_the_terminal() {
    let text = "\"\\u001b[31mred\" = 1\nx = \"\u{7f}\u{9b}31m\"\n[interface.\"a\\u0007b\"]\nkind = 'tun'\n";
    let shown = rendered(text);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let shown = rendered("x = 1\u{1b}[31m\n\u{0}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}
