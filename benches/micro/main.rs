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

fn main() -> std::process::ExitCode {
    // As in the server: without a recorder, metrics would cost nothing here.
    tidings::metrics::install().expect("nothing else has installed a recorder");
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--hot") {
        return hot::main(&arguments.collect::<Vec<_>>());
    }
    divan::main();
    std::process::ExitCode::SUCCESS
}
