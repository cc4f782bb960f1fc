//! Output that no parser knows: only percentages and `[3/10]` mean something.

use super::text::{message, number, settle};
use super::{Exit, LineParser};
use crate::worker::progress::ProgressState;

/// Takes a percentage or a `[3/10]` at either end of a line for the progress.
#[derive(Debug, Default)]
pub(super) struct Plain;

impl LineParser for Plain {
    fn line(&mut self, line: &str, state: &mut ProgressState) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if let Some(percent) = percent(line) {
            state.progress = percent;
        }
        state.message = Some(message(line));
    }

    fn finish(&mut self, _exit: Exit, state: &mut ProgressState) {
        settle(state);
    }
}

/// The progress that a line shows at its beginning or its end, 0 to 100.
fn percent(line: &str) -> Option<f64> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    // `[ 3/10]` and `[ 45%]` have a space inside.
    let bracketed = line.strip_prefix('[').and_then(|l| l.split_once(']')).map(|(inside, _)| inside);
    let at_end = line.strip_suffix(']').and_then(|l| l.rsplit_once('[')).map(|(_, inside)| inside);
    bracketed
        .and_then(|inside| fraction(inside.trim()))
        .or_else(|| at_end.and_then(|inside| fraction(inside.trim())))
        .or_else(|| percentage(first))
        .or_else(|| percentage(words.next_back()?))
}

fn fraction(text: &str) -> Option<f64> {
    let Some((done, total)) = text.split_once('/') else { return percentage(text) };
    let (done, total) = (number(done.trim())?, number(total.trim())?);
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no 53 bits")]
    (total > 0 && done <= total).then(|| done as f64 * 100.0 / total as f64)
}

fn percentage(word: &str) -> Option<f64> {
    let digits = word.trim_matches(|c| matches!(c, '[' | ']' | '(' | ')' | ':' | ',')).strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = plain.then(|| digits.parse().ok())??;
    (0.0..=100.0).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stands_at_either_end_of_a_line() {
        for line in
            ["45%", "45% done", "built: 45%", "[45%] linking", "[ 45%] linking", "x (45.0%)", "x [9/20]"]
        {
            assert_eq!(percent(line), Some(45.0), "{line}");
        }
        for line in ["", "the 45% of it", "145%", "%", "[4/0]", "[5/4]", "1/2", "[a/b]", "NaN%", "1e1%"] {
            assert_eq!(percent(line), None, "{line}");
        }
    }
}
