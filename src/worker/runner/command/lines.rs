//! Cuts a stream of bytes into lines, in bounded memory.

/// The longest line that is passed on, in bytes; the rest of a longer one is dropped, and counted.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// The same for a line that begins as JSON does: half a document is none, and reports are written in one line, or with a
/// test's whole output in one of theirs.
pub(crate) const MAX_JSON_LINE: usize = 8 << 20;
/// How far it may be indented.
const MAX_INDENT: usize = 256;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// For good.
    Newline,
    /// By a return of the carriage: the next line overwrites it, as progress bars do.
    Return,
}

/// A line that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// As UTF-8 as well as it goes.
    pub(crate) text: String,
    pub(crate) end: End,
    /// How many bytes of it were dropped.
    pub(crate) cut: usize,
}

/// The line that is not finished yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    cut: usize,
    // A carriage return came last: a line feed or another line decides what it meant.
    returned: bool,
}

impl Lines {
    /// Takes the next bytes and passes on the lines that they finish.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Line)) {
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (part, None),
            };
            if self.returned && !text.is_empty() {
                self.emit(End::Return, &mut take);
            }
            let kept = text.len().min(self.room(text));
            self.line.extend_from_slice(&text[..kept]);
            self.cut = self.cut.saturating_add(text.len() - kept);
            match end {
                Some(b'\n') => self.emit(End::Newline, &mut take),
                Some(_) => self.returned = true,
                None => {}
            }
        }
    }

    /// Passes on what is left when no more bytes come.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(Line)) {
        if !self.line.is_empty() {
            self.emit(End::Newline, &mut take);
        }
    }

    /// How many bytes the line may still grow, of which `more` come next.
    fn room(&self, more: &[u8]) -> usize {
        let mut start = self.line.iter().chain(more).take(MAX_INDENT);
        let is_json = matches!(start.find(|byte| !matches!(byte, b' ' | b'\t')), Some(b'{' | b'"'));
        let most = if is_json { MAX_JSON_LINE } else { MAX_LINE };
        most.saturating_sub(self.line.len())
    }

    fn emit(&mut self, end: End, take: &mut impl FnMut(Line)) {
        if end == End::Newline || !self.line.is_empty() {
            take(Line { text: String::from_utf8_lossy(&self.line).into_owned(), end, cut: self.cut });
        }
        self.line.clear();
        self.line.shrink_to(MAX_LINE);
        self.cut = 0;
        self.returned = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(String, End)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| out.push((line.text, line.end)));
        }
        lines.finish(|line| out.push((line.text, line.end)));
        out
    }

    #[test]
    fn lines_do_not_depend_on_how_their_bytes_arrive() {
        let text = "a\r\n10%\r20%\r\rdone\nä\n\nlast".as_bytes();
        let whole = lines(&[text]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&bytes), whole);
        let expected = [
            ("a", End::Newline),
            ("10%", End::Return),
            ("20%", End::Return),
            ("done", End::Newline),
            ("ä", End::Newline),
            ("", End::Newline),
            ("last", End::Newline),
        ];
        assert_eq!(whole, expected.map(|(line, end)| (line.to_owned(), end)));
        assert_eq!(lines(&[b"50%\r"]), [("50%".to_owned(), End::Newline)]);
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.push(&[b'x'; 10_000], |_| panic!("no line ended"));
        }
        assert!(lines.line.capacity() <= 2 * MAX_LINE);
        let mut found = Vec::new();
        lines.push(b"\nnext\n", |line| found.push(line));
        assert_eq!((found[0].text.len(), found[0].cut), (MAX_LINE, 1_000_000 - MAX_LINE));
        assert_eq!((found[1].text.as_str(), found[1].cut), ("next", 0));
    }

    #[test]
    fn a_line_of_json_is_kept_whole_and_bounded_too() {
        for start in ["{\"a\":\"", "  \t\"stdout\": \""] {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            lines.push(start.as_bytes(), |_| panic!("no line ended"));
            (0..100).for_each(|_| lines.push(&[b'x'; 10_000], |_| panic!("no line ended")));
            lines.push(b"\"}\nnext", |line| found.push(line));
            assert_eq!((found[0].text.len(), found[0].cut), (start.len() + 1_000_002, 0), "{start}");
            assert!(lines.line.capacity() <= 2 * MAX_LINE);
            lines.push(b"\n", |_| {});
            lines.push(start.as_bytes(), |_| panic!("no line ended"));
            (0..2000).for_each(|_| lines.push(&[b'x'; 10_000], |_| panic!("no line ended")));
            assert!(lines.line.capacity() <= 2 * MAX_JSON_LINE);
            lines.finish(|line| found.push(line));
            assert_eq!(
                (found[1].text.len(), found[1].cut),
                (MAX_JSON_LINE, start.len() + 20_000_000 - MAX_JSON_LINE)
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xff\xfeb\n"]), [("a\u{fffd}\u{fffd}b".to_owned(), End::Newline)]);
    }
}
