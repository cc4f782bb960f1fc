//! What others wrote, as a terminal may have it: characters that it would obey are shown instead.
//!
//! Names of tests, messages and output come from whoever runs them, and the one who looks at them is somebody else.

use std::borrow::Cow;

/// `text` with characters that are neither shown nor plain white space as JSON escapes them: in JSON it stays the same value.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            plain.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// Whether a terminal would do something else than show it: controls, those beyond ASCII too (C1: U+009B begins a sequence
/// as ESC does), and characters that change the direction of text.
pub(crate) fn is_obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(
            plain("a\u{1b}]0;x\u{7}b\u{9b}31m\r\u{202e}c"),
            "a\\u001b]0;x\\u0007b\\u009b31m\\u000d\\u202ec"
        );
        assert_eq!(plain("two\n\tlines, ärger ✗ \u{1f600}"), "two\n\tlines, ärger ✗ \u{1f600}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a\u{9b}": "b\u{202e}\u{7f}\u{1b}" });
        let text = value.to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain(&text)).unwrap(), value);
        assert!(!plain(&text).chars().any(is_obeyed));
    }
}
