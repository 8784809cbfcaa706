//! Whatever the text of a scenario is: it is checked in bounded time, nothing panics, and every error has a place in
//! the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use evenkeel_sim::Scenario;
use evenkeel_sim::scenario::{FILE_MAX_BYTES, ScenarioErrors, reference};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Scenario, ScenarioErrors> {
    Scenario::parse(text, Path::new("dir/any.toml"))
}

/// Every error of a text has a place in it, and words.
fn check(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = parse(text) else { return Ok(()) };
    prop_assert!(!errors.0.is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = (0, 0);
    for error in &errors.0 {
        let is_in = |line: usize, column: usize| {
            line >= 1
                && column >= 1
                && lines.get(line - 1).is_some_and(|line| column <= line.chars().count() + 1)
        };
        prop_assert!(is_in(error.line, error.column), "{error}");
        prop_assert!(is_in(error.end_line, error.end_column), "{error:?}");
        prop_assert!((error.line, error.column) <= (error.end_line, error.end_column), "{error:?}");
        prop_assert!(!error.message.is_empty());
        prop_assert!(last <= (error.line, error.column), "in the order of the file");
        last = (error.line, error.column);
        prop_assert_eq!(&error.file, Path::new("dir/any.toml"));
    }
    Ok(())
}

/// Pieces that scenarios are made of, so that random texts come near to being one.
const PIECES: &[&str] = &[
    "[scenario]\n",
    "name = \"x\"\n",
    "duration = \"10s\"\n",
    "[segment.lan]\n",
    "subnet = \"10.0.0.0/24\"\n",
    "subnet = [\"fd00::/64\", \"10.0.0.0/8\"]\n",
    "[host.a]\n",
    "count = 3\n",
    "count = 65536\n",
    "attach = [{ segment = \"lan\", address = \"10.0.0.2+i/24\" }]\n",
    "attach = []\n",
    "gateway = \"10.0.0.9\"\n",
    "[router.r]\n",
    "routes = [{ to = \"default\", via = [\"10.0.0.2\", { address = \"10.0.0.3\", weight = 0 }] }]\n",
    "rules = [{ priority = 1, table = 5, dport = \"1-70000\" }]\n",
    "[forwarder.lb]\n",
    "config = \"c.toml\"\n",
    "[link.l]\n",
    "ends = [\"a*\", \"lan\"]\n",
    "delay = { law = \"pareto\" }\n",
    "loss = 2\n",
    "queue = { kind = \"red\" }\n",
    "[load.w]\n",
    "from = \"*\"\n",
    "to = \"10.0.0.3:80/tcp\"\n",
    "arrivals = { process = \"closed\", rate = \"1/s\" }\n",
    "flows = -1\n",
    "request = { law = \"lognormal\", mean = \"1B\" }\n",
    "[[timeline]]\n",
    "at = \"1h\"\n",
    "every = \"1ns\"\n",
    "within = [\"1s\"]\n",
    "do = \"link.set\"\n",
    "target = \"a.*\"\n",
    "both = {}\n",
    "[[expect]]\n",
    "metric = \"share.a.b\"\n",
    "equals = 1e400\n",
    "[capture]\n",
    "segments = \"*\"\n",
    "\u{feff}",
    "é = [[",
    "'''",
    "{",
    "\"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_checked(text in "\\PC{0,400}") {
        check(&text)?;
    }

    #[test]
    fn any_pieces_are_checked(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        check(&pieces.concat())?;
    }

    /// The scenario with every key, with something taken out, put in or doubled.
    #[test]
    fn any_small_change_is_checked(
        changes in proptest::collection::vec(
            (0..reference::EXAMPLE.len(), 0_usize..12, proptest::sample::select(PIECES), any::<bool>()),
            1..4,
        ),
    ) {
        let mut text = reference::EXAMPLE.to_owned();
        for (at, length, piece, is_put_in) in changes {
            let start = text.floor_char_boundary(at);
            let end = text.floor_char_boundary(start + length).max(start);
            text.replace_range(start..end, if is_put_in { piece.trim_end() } else { "" });
        }
        check(&text)?;
    }

    /// The scenario with every key, with one value in the place of another.
    #[test]
    fn any_exchange_of_values_is_checked(from in 0_usize..400, to in 0_usize..400) {
        let values: Vec<(usize, &str)> = reference::EXAMPLE
            .match_indices(" = ")
            .map(|(at, _)| {
                let rest = &reference::EXAMPLE[at + 3..];
                (at + 3, &rest[..rest.find(['\n', ',', '}']).unwrap_or(rest.len())])
            })
            .collect();
        let (at, old) = values[from % values.len()];
        let (_, new) = values[to % values.len()];
        let mut text = reference::EXAMPLE.to_owned();
        text.replace_range(at..at + old.len(), new);
        check(&text)?;
    }
}

#[test]
fn a_megabyte_of_anything_is_checked() {
    let room = usize::try_from(FILE_MAX_BYTES).unwrap();
    let fill = |piece: &str| piece.repeat(room / piece.len());
    let numbered = |piece: &str| {
        let mut text = String::new();
        for number in 0.. {
            let next = piece.replace('#', &format!("{number}"));
            if text.len() + next.len() > room {
                break;
            }
            text.push_str(&next);
        }
        text
    };
    let texts = [
        fill("["),
        fill("a = 1\n"),
        fill("[[timeline]]\n"),
        fill("[[expect]]\nmetric = 5\n"),
        fill("x."),
        fill("\"\"\"\n"),
        fill("{ a = "),
        fill("é"),
        fill("# nothing\n"),
        numbered("[segment.s#]\nsubnet = \"10.0.0.0/9\"\n"),
        numbered("[host.h#]\ncount = 65536\nattach = [{ segment = \"lan\", address = \"10.0.0.1+i/8\" }]\n"),
        numbered(
            "[load.l#]\nfrom = \"*\"\nto = \"10.0.0.1:80/tcp\"\narrivals = { process = \"closed\", outstanding = 5 }\nflows = 5\n",
        ),
    ];
    for text in texts {
        assert!(parse(&text).is_err(), "{}", &text[..40.min(text.len())]);
    }
    assert!(parse(&"#".repeat(room + 1)).unwrap_err().to_string().contains("more than 1048576 bytes"));
}

#[test]
fn what_few_lines_can_multiply_is_bounded() {
    // 65,536 hosts of 1,000 routes each, and 1,000 loads from all of them.
    let mut text = String::from(
        "[scenario]\nname = \"x\"\nduration = \"1s\"\n[segment.lan]\nsubnet = \"10.0.0.0/8\"\n\
         [host.h]\ncount = 65536\nattach = [{ segment = \"lan\", address = \"10.0.0.1+i/8\" }]\nroutes = [\n",
    );
    for number in 0..1_000 {
        text.push_str(&format!(
            "{{ to = \"172.16.{}.{}\", action = \"blackhole\" }},\n",
            number / 250,
            number % 250
        ));
    }
    text.push_str("]\n");
    let errors = parse(&text).unwrap_err().to_string();
    assert!(errors.contains("more than 1048576 addresses, interfaces, routes"), "{errors}");
}

#[test]
fn deep_nesting_is_refused() {
    let depth = 50_000;
    for (open, close) in [("[", "]"), ("{ a = ", " }"), ("[{ a = ", " }]")] {
        let text = format!("a = {}1{}", open.repeat(depth), close.repeat(depth));
        assert!(parse(&text).is_err());
    }
    assert!(parse(&format!("{}b = 1", "a.".repeat(depth))).is_err());
    assert!(parse(&format!("[{}b]", "a.".repeat(depth))).is_err());
}
