//! Text that goes into HTML or SVG.

/// `text` as the content of an element or of an attribute in quotation marks. Characters that no document may
/// have become U+FFFD.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            // Control characters, and those that turn the direction of the text around them.
            _ if character.is_control() || is_turning(character) => safe.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}

const fn is_turning(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most so many characters, the last one an ellipsis where there were more.
#[must_use]
pub(crate) fn shortened(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(
            escaped("<script>\"x\" & 'y'</script>"),
            "&lt;script&gt;&quot;x&quot; &amp; &#39;y&#39;&lt;/script&gt;"
        );
        assert_eq!(
            escaped("a\u{0}b\u{1b}[1mc\nd\u{202e}e\u{ffff}"),
            "a\u{fffd}b\u{fffd}[1mc d\u{fffd}e\u{fffd}"
        );
        assert_eq!(escaped("µs → ü"), "µs → ü");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!((shortened("äöü", 3), shortened("äöüß", 3)), ("äöü".to_owned(), "äö…".to_owned()));
    }
}
