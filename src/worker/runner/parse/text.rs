//! What the parsers share: bounded text and saturating numbers.

use std::borrow::Cow;

use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// The longest name of a test case that is kept, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 300;
/// The longest message of a failure that is kept, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1000;
/// How much of a failure's output is kept, in bytes.
pub(crate) const MAX_OUTPUT_BYTES: usize = 2048;
/// No count is higher, so that sums of counts do not overflow.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// The beginning of `text`, at most `max` bytes of it.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A test case's name, cut where it is too long.
pub(super) fn name(text: &str) -> String {
    cut(text.trim(), MAX_NAME_BYTES).to_owned()
}

/// A message for people, cut where it is too long.
pub(super) fn message(text: &str) -> String {
    cut(text.trim(), MAX_MESSAGE_BYTES).to_owned()
}

/// The number that `text` consists of; a huge one saturates.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(MAX_COUNT).min(MAX_COUNT))
}

/// The milliseconds of `12 ms`, `0.72ms`, `1.2s` or `2.3m`; nothing where `text` is no such time.
pub(super) fn time(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let factor = match text[at..].trim() {
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    let ms = text[..at].parse::<f64>().ok()? * factor;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e12")]
    (0.0..1e12).contains(&ms).then_some(ms as u64)
}

/// `a + b`, within what a count may be.
pub(super) fn add(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(MAX_COUNT)
}

/// Counts a failed test case and notes it.
pub(super) fn fail(state: &mut ProgressState, failure: Failure) {
    state.counts.failed = add(state.counts.failed, 1);
    state.note_failure(failure);
}

/// Shows the progress that the counts stand for; there are never fewer test cases than have ended.
pub(super) fn show(state: &mut ProgressState) {
    let done = state.counts.done();
    state.counts.total = state.counts.total.map(|t| t.max(done));
    state.progress_from_counts();
}

/// Settles the counts at the end: those that ended are all there were, where nobody said a total.
pub(super) fn settle(state: &mut ProgressState) {
    state.current.clear();
    let done = state.counts.done();
    if state.counts.total.is_none() && done > 0 {
        state.counts.total = Some(done);
    }
    show(state);
}

/// `line` without terminal escape sequences and other control characters; a log is not to move a reader's
/// cursor.
#[must_use]
pub fn plain_text(line: &str) -> Cow<'_, str> {
    if !line.chars().any(|c| c.is_control() && c != '\t') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            // CSI: parameters, then one final character.
            ('\u{1b}', Some('[')) => {
                chars.next();
                while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                chars.next_if(|c| matches!(c, '@'..='~'));
            }
            // OSC, such as a link or a title: up to BEL or ESC \.
            ('\u{1b}', Some(']')) => {
                while chars.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}')).is_some() {}
                if chars.next() == Some('\u{1b}') {
                    chars.next_if_eq(&'\\');
                }
            }
            ('\u{1b}', Some('@'..='_')) => drop(chars.next()),
            (c, _) if c.is_control() && c != '\t' => {}
            (c, _) => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The end of a text, in bounded memory.
#[derive(Debug, Default, Clone)]
pub struct Tail(String);

impl Tail {
    /// Adds text as it is.
    pub fn push(&mut self, text: &str) {
        let from = text.len().saturating_sub(MAX_OUTPUT_BYTES);
        self.0.push_str(&text[text.ceil_char_boundary(from)..]);
        // Cut seldom, so that a long text costs a copy per kept length and not one per line.
        if self.0.len() > 2 * MAX_OUTPUT_BYTES {
            self.trim();
        }
    }

    /// Adds a line.
    pub fn line(&mut self, line: &str) {
        self.push(line);
        self.push("\n");
    }

    fn trim(&mut self) {
        let from = self.0.len().saturating_sub(MAX_OUTPUT_BYTES);
        self.0.drain(..self.0.ceil_char_boundary(from));
    }

    /// What is kept, without blank lines around it; nothing if there is nothing else.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut whole = self.clone();
        whole.trim();
        let text = whole.0.trim_matches(['\n', '\r']).trim_end();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_titles_are_left_out() {
        assert_eq!(plain_text("\u{1b}[1;32mok\u{1b}[0m\t\u{1b}]0;title\u{7}x\u{8}"), "ok\tx");
        assert_eq!(plain_text("a\u{1b}"), "a");
        assert_eq!(plain_text("é"), "é");
    }

    #[test]
    fn a_tail_keeps_the_end_between_characters() {
        let mut tail = Tail::default();
        for i in 0..5000 {
            tail.line(&format!("é {i}"));
        }
        let text = tail.text().unwrap();
        assert!(text.len() <= MAX_OUTPUT_BYTES && text.ends_with("é 4999"));
        tail.push(&"é".repeat(5000));
        assert_eq!(tail.text().unwrap().len(), MAX_OUTPUT_BYTES);
        assert_eq!(Tail::default().text(), None);
    }

    #[test]
    fn times_are_read_as_runners_write_them() {
        for (text, ms) in [("12 ms", 12), ("0.72ms", 0), ("1.2s", 1200), ("5.1 s", 5100), ("2.5m", 150_000)] {
            assert_eq!(time(text), Some(ms), "{text}");
        }
        for text in ["", "12", "ms", "12 msec", "1m 3s", "-1s", "99999999999999s", "1..2s"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_huge_number_saturates() {
        assert_eq!(number("99999999999999999999999999"), Some(MAX_COUNT));
        assert_eq!((number(""), number("-1"), number("1x")), (None, None, None));
    }
}
