//! Micro benchmarks: what one message costs in each part that it passes.
//!
//! `cargo bench --bench micro [FILTER]` measures times, `cargo test --bench micro` runs everything once.
//! `benches/callgrind` counts the instructions of the hot parts ([`hot`]) in this same binary: counts are the
//! same on a noisy machine.

mod append;
mod encode;
mod hot;
mod nowhere;
mod outbox;
mod owner;
mod publish;
mod sample;

/// Nothing is counted.
const WITHOUT_METRICS: &str = "--without-metrics";

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != WITHOUT_METRICS);
    // As in the server: without a recorder metrics cost nothing, which is for comparisons.
    if !std::env::args().any(|argument| argument == WITHOUT_METRICS) {
        tidings::metrics::install().expect("nothing else has installed a recorder");
    }
    if arguments.next().as_deref() == Some("--hot") {
        return hot::main(&arguments.collect::<Vec<_>>());
    }
    divan::main();
    std::process::ExitCode::SUCCESS
}
