//! JUnit XML, which many runners can write at their end.
//!
//! Read as a stream, so that a large report costs no memory.

use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::text::{Tail, add, cut, fail, message, name, settle};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;
use crate::worker::runner::parse::text::MAX_OUTPUT_BYTES;

/// Elements may be nested this deep.
const MAX_DEPTH: usize = 64;

/// Why a report cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JunitError {
    /// It is no XML, or ends too early.
    #[error("at byte {at}: {reason}")]
    Xml {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// It is XML, and something else.
    #[error("it begins with <{0}>, not with <testsuites> or <testsuite>")]
    NoReport(String),
}

/// A test case that is being read.
#[derive(Default)]
struct Case {
    name: String,
    failure: Option<(String, Tail)>,
    is_skipped: bool,
    output: Tail,
    // Which text the next characters belong to.
    inside: Option<Text>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Failure,
    Output,
}

/// Adds the test cases of a report to `state`.
///
/// # Errors
/// [`JunitError`]; what stood before the fault is in `state`.
pub(crate) fn read(report: impl BufRead, state: &mut ProgressState) -> Result<(), JunitError> {
    let mut reader = Reader::from_reader(report);
    let (mut buffer, mut case, mut depth) = (Vec::new(), None::<Case>, 0_usize);
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer);
        let at = reader.buffer_position();
        let fault = |reason: String| JunitError::Xml { at, reason };
        match event.map_err(|e| fault(e.to_string()))? {
            Event::Start(element) => {
                if depth == 0 && !matches!(element.name().as_ref(), "testsuites" | "testsuite") {
                    let name = element.name().as_ref().to_owned();
                    return Err(JunitError::NoReport(cut(&name, 100).to_owned()));
                }
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(fault("elements are nested too deep".to_owned()));
                }
                open(&element, &mut case, state);
            }
            Event::Empty(element) => {
                open(&element, &mut case, state);
                close(element.name().as_ref(), &mut case, state);
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                close(element.name().as_ref(), &mut case, state);
            }
            Event::Text(text) => say(&text, &mut case),
            Event::CData(text) => say(&text, &mut case),
            Event::GeneralRef(entity) => say(&resolved(&entity), &mut case),
            Event::Eof if depth > 0 => return Err(fault("it ends too early".to_owned())),
            Event::Eof => break,
            _ => {}
        }
    }
    settle(state);
    Ok(())
}

fn open(element: &BytesStart<'_>, case: &mut Option<Case>, state: &mut ProgressState) {
    match (element.name().as_ref(), case) {
        ("testcase", case) => {
            let title = attribute(element, "name").unwrap_or_default();
            let class = attribute(element, "classname").filter(|class| !class.is_empty());
            let title = class.map_or(title.clone(), |class| format!("{class}.{title}"));
            let test = name(&title);
            let seconds = attribute(element, "time").and_then(|time| time.trim().parse::<f64>().ok());
            if let Some(seconds) = seconds.filter(|s| (0.0..1e9).contains(s)) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e12")]
                state.note_duration(&test, (seconds * 1000.0) as u64);
            }
            *case = Some(Case { name: test, ..Case::default() });
        }
        ("failure" | "error", Some(case)) => {
            let why = attribute(element, "message").unwrap_or_default();
            let (_, text) = case.failure.take().unwrap_or_default();
            case.failure = Some((message(why.lines().next().unwrap_or_default()), text));
            case.inside = Some(Text::Failure);
        }
        ("skipped", Some(case)) => case.is_skipped = true,
        ("system-out" | "system-err", Some(case)) => case.inside = Some(Text::Output),
        _ => {}
    }
}

fn close(element: &str, case: &mut Option<Case>, state: &mut ProgressState) {
    if element != "testcase" {
        if let Some(case) = case {
            case.inside = None;
        }
        return;
    }
    let Some(Case { name, failure, is_skipped, output, .. }) = case.take() else { return };
    match failure {
        // Node writes a failure beside the mark of what is not expected to pass.
        _ if is_skipped => state.counts.skipped = add(state.counts.skipped, 1),
        Some((why, mut text)) => {
            if let Some(printed) = output.text() {
                text.line("");
                text.push(cut(&printed, MAX_OUTPUT_BYTES / 2));
            }
            fail(state, Failure { name, message: why, output: text.text(), history: None });
        }
        None => state.counts.passed = add(state.counts.passed, 1),
    }
}

fn say(text: &str, case: &mut Option<Case>) {
    let Some(case) = case else { return };
    match (case.inside, &mut case.failure) {
        (Some(Text::Failure), Some((_, tail))) => tail.push(text),
        (Some(Text::Output), _) => case.output.push(text),
        _ => {}
    }
}

fn attribute(element: &BytesStart<'_>, key: &str) -> Option<String> {
    let attribute = element.attributes().with_checks(false).flatten().find(|a| a.key.as_ref() == key)?;
    let raw = attribute.value.into_owned();
    Some(quick_xml::escape::unescape(&raw).map(|text| text.into_owned()).unwrap_or(raw))
}

/// The character of `lt`, `#10` or `#xa`.
fn resolved(entity: &str) -> String {
    let text = format!("&{entity};");
    quick_xml::escape::unescape(&text).map(|text| text.into_owned()).unwrap_or(text.clone())
}
