//! The budget of the log: how much of a command's output gets there, and what is said in place of the rest.
//!
//! Parsers see every line; this is about what is stored and sent. A line that finds no room is held for a while:
//! the last ones are logged after all when the command ends, because a tail is worth more than a head.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::config::suite::OutputLimits;

/// What a line counts at least: a stored and sent line is more than its text.
const LINE_COST: u64 = 128;
/// How much of what found no room is held for the end.
const HELD_LINES: usize = 50;
const HELD_BYTES: usize = 16 * 1024;

/// Decides line by line.
#[derive(Debug)]
pub(super) struct Budget {
    limits: OutputLimits,
    // A bucket that fills in a second.
    room: f64,
    filled_at: Instant,
    // It was empty, and is not yet full enough to go on: or there would be a remark for each line.
    is_closed: bool,
    rest: u64,
    held: VecDeque<String>,
    held_bytes: usize,
    // Of those that are not even held, since the last one that was logged.
    skipped: LeftOut,
    all: LeftOut,
}

/// What the log does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

impl LeftOut {
    fn add(&mut self, lines: u64, bytes: usize) {
        self.lines += lines;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

impl Budget {
    pub(super) fn new(limits: OutputLimits) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most 256 KiB")]
        let room = limits.bytes_per_second as f64;
        Self {
            limits,
            room,
            filled_at: Instant::now(),
            is_closed: false,
            rest: limits.total_bytes,
            held: VecDeque::new(),
            held_bytes: 0,
            skipped: LeftOut::default(),
            all: LeftOut::default(),
        }
    }

    /// Takes a line, of which `cut` bytes are gone already, and logs what there is room for.
    pub(super) fn line(&mut self, text: &str, cut: usize, mut log: impl FnMut(&str)) {
        let text = self.shorten(text, cut);
        if !self.pays(text.len()) {
            return self.hold(text);
        }
        self.skip_held();
        self.tell_skipped(&mut log);
        log(&text);
    }

    /// Logs the end of what found no room: no line follows. Returns what the log does not have.
    pub(super) fn finish(&mut self, mut log: impl FnMut(&str)) -> LeftOut {
        self.tell_skipped(&mut log);
        self.held.drain(..).for_each(|line| log(&line));
        self.all
    }

    fn shorten(&mut self, text: &str, cut: usize) -> String {
        let limit = self.limits.line_bytes;
        if cut == 0 && text.len() <= limit {
            return text.to_owned();
        }
        // Room for the remark, however large its number.
        let kept = text.floor_char_boundary(limit.saturating_sub(40).min(text.len()));
        let cut = cut + text.len() - kept;
        self.all.add(0, cut);
        format!("{} [… {cut} bytes left out]", &text[..kept])
    }

    fn pays(&mut self, bytes: usize) -> bool {
        let (now, bytes) = (Instant::now(), bytes as u64 + 1);
        #[expect(clippy::cast_precision_loss, reason = "at most 256 KiB")]
        let (rate, cost) = (self.limits.bytes_per_second as f64, bytes.max(LINE_COST) as f64);
        self.room = (self.room + (now - self.filled_at).as_secs_f64() * rate).min(rate);
        self.filled_at = now;
        if self.rest < bytes {
            // Once the whole is spent it stays so: a short line must not slip through where a long one did not.
            self.rest = 0;
            return false;
        }
        self.is_closed = self.room < if self.is_closed { rate / 2.0 } else { cost };
        if self.is_closed {
            return false;
        }
        self.room -= cost;
        self.rest -= bytes;
        true
    }

    fn hold(&mut self, line: String) {
        self.held_bytes += line.len();
        self.held.push_back(line);
        while self.held.len() > HELD_LINES || self.held_bytes > HELD_BYTES {
            self.skip_oldest();
        }
    }

    fn skip_held(&mut self) {
        while !self.held.is_empty() {
            self.skip_oldest();
        }
    }

    fn skip_oldest(&mut self) {
        if let Some(line) = self.held.pop_front() {
            self.held_bytes -= line.len();
            self.skipped.add(1, line.len() + 1);
            self.all.add(1, line.len() + 1);
        }
    }

    fn tell_skipped(&mut self, log: &mut impl FnMut(&str)) {
        let LeftOut { lines, bytes } = std::mem::take(&mut self.skipped);
        if lines > 0 {
            let why = if self.rest == 0 { "the whole output" } else { "a second" };
            let limit = if self.rest == 0 { self.limits.total_bytes } else { self.limits.bytes_per_second };
            log(&format!(
                "[tidings: {lines} lines, {bytes} bytes, are left out here: {why} may have {limit} bytes]"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: OutputLimits =
        OutputLimits { line_bytes: 100, bytes_per_second: 4096, total_bytes: 10_000 };

    fn take(budget: &mut Budget, text: &str) -> Vec<String> {
        let mut logged = Vec::new();
        budget.line(text, 0, |line| logged.push(line.to_owned()));
        logged
    }

    fn end(budget: &mut Budget) -> (Vec<String>, LeftOut) {
        let mut logged = Vec::new();
        let left_out = budget.finish(|line| logged.push(line.to_owned()));
        (logged, left_out)
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_says_how_much_of_it_is_gone() {
        let mut budget = Budget::new(LIMITS);
        let mut logged = Vec::new();
        budget.line(&"é".repeat(80), 1000, |line| logged.push(line.to_owned()));
        assert_eq!(logged, [format!("{} [… 1100 bytes left out]", "é".repeat(30))]);
        assert!(logged[0].len() <= LIMITS.line_bytes);
        assert_eq!(end(&mut budget), (vec![], LeftOut { lines: 0, bytes: 1100 }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_second_has_no_room_for_is_counted_where_it_is_missing() {
        let mut budget = Budget::new(LIMITS);
        let logged: usize = (0..1000).map(|_| take(&mut budget, "a line").len()).sum();
        assert_eq!(logged, 32, "a second's worth, each line at 128 bytes");
        tokio::time::advance(Duration::from_secs(1)).await;
        let logged = take(&mut budget, "later");
        assert_eq!(
            logged,
            ["[tidings: 968 lines, 6776 bytes, are left out here: a second may have 4096 bytes]", "later"]
        );
        assert_eq!(end(&mut budget), (vec![], LeftOut { lines: 968, bytes: 6776 }));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_whole_only_the_end_is_logged() {
        let mut budget = Budget::new(LIMITS);
        let mut logged = 0;
        for _ in 0..1000 {
            tokio::time::advance(Duration::from_secs(1)).await;
            logged += take(&mut budget, &"x".repeat(99)).len();
        }
        assert_eq!(logged, 100);
        assert_eq!(take(&mut budget, "short"), Vec::<String>::new());
        let (tail, left_out) = end(&mut budget);
        assert_eq!(tail.len(), HELD_LINES + 1);
        let said =
            "[tidings: 851 lines, 85100 bytes, are left out here: the whole output may have 10000 bytes]";
        assert_eq!((tail[0].as_str(), tail.last().map(String::as_str)), (said, Some("short")));
        assert_eq!(left_out.lines, 851);
    }
}
