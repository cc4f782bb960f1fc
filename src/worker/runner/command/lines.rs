//! Cuts a stream of bytes into lines, in bounded memory.

/// The longest line that is passed on, in bytes; the rest of a longer one is dropped.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// For good.
    Newline,
    /// By a return of the carriage: the next line overwrites it, as progress bars do.
    Return,
}

/// The line that is not finished yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    // A carriage return came last: a line feed or another line decides what it meant.
    returned: bool,
}

impl Lines {
    /// Takes the next bytes and passes on the lines that they finish, as UTF-8 as well as it goes.
    pub(super) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(String, End)) {
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (part, None),
            };
            if self.returned && !text.is_empty() {
                self.emit(End::Return, &mut take);
            }
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            match end {
                Some(b'\n') => self.emit(End::Newline, &mut take),
                Some(_) => self.returned = true,
                None => {}
            }
        }
    }

    /// Passes on what is left when no more bytes come.
    pub(super) fn finish(&mut self, mut take: impl FnMut(String, End)) {
        if !self.line.is_empty() {
            self.emit(End::Newline, &mut take);
        }
    }

    fn emit(&mut self, end: End, take: &mut impl FnMut(String, End)) {
        if end == End::Newline || !self.line.is_empty() {
            take(String::from_utf8_lossy(&self.line).into_owned(), end);
        }
        self.line.clear();
        self.returned = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(String, End)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line, end| out.push((line, end)));
        }
        lines.finish(|line, end| out.push((line, end)));
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
            lines.push(&[b'x'; 10_000], |_, _| panic!("no line ended"));
        }
        assert!(lines.line.capacity() <= 2 * MAX_LINE);
        let mut found = Vec::new();
        lines.push(b"\nnext\n", |line, _| found.push(line));
        assert_eq!((found[0].len(), found[1].as_str()), (MAX_LINE, "next"));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xff\xfeb\n"]), [("a\u{fffd}\u{fffd}b".to_owned(), End::Newline)]);
    }
}
