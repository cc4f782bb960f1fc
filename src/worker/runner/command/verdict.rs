//! What a command's end and its test cases mean for the attempt.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::budget::LeftOut;
use super::feed::Printed;
use crate::model::test::TestError;
use crate::worker::progress::ProgressState;
use crate::worker::runner::Outcome;
use crate::worker::runner::guard;
use crate::worker::runner::parse::Exit;

/// The outcome of a command that ended by itself.
pub(crate) fn outcome(exit: Exit, state: &ProgressState, printed: &Printed, took: Duration) -> Outcome {
    let failed = state.counts.failed.max(state.failures.len() as u64);
    let results = results(exit, state, printed, took);
    match exit {
        Exit::Signal(signal) => {
            let message = format!("killed by signal {signal}{}", name(signal));
            failed_to_run(quoting(message, printed), results)
        }
        Exit::Code(guard::FAILED) if could_not_start(printed) => {
            failed_to_run(printed.last_lines.iter().last().cloned().unwrap_or_default(), results)
        }
        Exit::Code(_) if failed > 0 => {
            let total = state.counts.total.unwrap_or_default().max(state.counts.done()).max(failed);
            let tests = if total == 1 { "test" } else { "tests" };
            Outcome::tests_failed(format!("{failed} of {total} {tests} failed"), results)
        }
        Exit::Code(0) => Outcome::Passed { results },
        Exit::Code(code) => {
            Outcome::tests_failed(quoting(format!("exited with code {code}"), printed), results)
        }
    }
}

fn failed_to_run(message: String, results: Map<String, Value>) -> Outcome {
    Outcome::Failed { error: TestError { code: "runner_error".to_owned(), message }, results }
}

/// Whether the guard says so.
pub(crate) fn could_not_start(printed: &Printed) -> bool {
    printed.last_lines.iter().last().is_some_and(|line| line.starts_with(guard::COMPLAINT))
}

fn quoting(message: String, printed: &Printed) -> String {
    if printed.last_lines.is_empty() {
        return message;
    }
    let lines: Vec<&str> = printed.last_lines.iter().map(String::as_str).collect();
    format!("{message}: {}", lines.join("\n"))
}

fn results(exit: Exit, state: &ProgressState, printed: &Printed, took: Duration) -> Map<String, Value> {
    let mut results = Map::new();
    match exit {
        Exit::Code(code) => results.insert("exitCode".to_owned(), json!(code)),
        Exit::Signal(signal) => results.insert("signal".to_owned(), json!(signal)),
    };
    results.insert("counts".to_owned(), json!(state.counts));
    results.insert("durationMs".to_owned(), json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
    results.insert("failures".to_owned(), json!(state.failures));
    if !state.slowest.is_empty() {
        results.insert("slowest".to_owned(), json!(state.slowest));
    }
    if let Some(output) = printed.tail.text().filter(|_| !exit.is_success()) {
        results.insert("output".to_owned(), json!(output));
    }
    let LeftOut { lines, bytes } = printed.left_out;
    if bytes > 0 {
        results.insert("logLeftOut".to_owned(), json!({ "lines": lines, "bytes": bytes }));
    }
    results
}

/// What the most frequent signals are called, and what usually sends them.
fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL), perhaps because memory or CPU time ran out",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}
