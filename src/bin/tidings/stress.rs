//! `tidings stress merge`: the results of stress tests that ran side by side, as those of one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};
use tidings::worker::runner::stress::merge as merged;

use crate::Failure;
use crate::client::{Server, print_line};

/// Arguments of `stress`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add up the results of several stress tests: percentiles are those of all requests together.
    Merge(MergeArgs),
}

#[derive(Debug, clap::Args)]
struct MergeArgs {
    /// Tests that have ended, which the server is asked for.
    #[arg(value_name = "TEST", required_unless_present = "files")]
    tests: Vec<String>,
    /// A file of results: what `submit --wait --json` or `GET /api/v1/tests/…` printed. May be given more than once.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let Command::Merge(args) = args.command;
    let mut all = Vec::new();
    for test in &args.tests {
        let snapshot: Value = args.server.address.http()?.get(&format!("/api/v1/tests/{test}")).await?;
        let state = snapshot["state"].as_str().unwrap_or("unknown").to_owned();
        all.push(
            results(snapshot)
                .ok_or_else(|| anyhow!("`{test}` is {state} and has no results of a stress test"))?,
        );
    }
    for file in &args.files {
        all.extend(read(file)?);
    }
    let whole = merged(&all)?;
    if args.server.json {
        print_line(Value::Object(whole))?;
    } else {
        print_line(told(all.len(), &whole))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All results in a file of JSON values.
fn read(file: &Path) -> Result<Vec<Map<String, Value>>, Failure> {
    let name = file.display();
    let text = std::fs::read(file).with_context(|| format!("{name} cannot be read"))?;
    let values: Vec<Value> = serde_json::Deserializer::from_slice(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{name} is not JSON"))?;
    let found: Vec<_> = values.into_iter().filter_map(results).collect();
    if found.is_empty() {
        return Err(anyhow!("{name} has no results of a stress test").into());
    }
    Ok(found)
}

/// The results in a snapshot, or those that `value` is.
fn results(value: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut fields) = value else { return None };
    let found = match fields.remove("results") {
        Some(Value::Object(results)) => results,
        _ => fields,
    };
    found.contains_key("histogram").then_some(found)
}

fn told(n: usize, results: &Map<String, Value>) -> String {
    let latency = |name: &str| results["latencyMs"][name].as_f64().unwrap_or_default();
    // Of tests that a threshold ended.
    let interrupted = results["interrupted"].as_u64().filter(|n| *n > 0);
    let interrupted = interrupted.map(|n| format!(", {n} interrupted")).unwrap_or_default();
    format!(
        "{n} tests: {} requests, {} failed, {} dropped{interrupted}, {} per second\n\
         latency in ms: p50 {:.3}, p90 {:.3}, p95 {:.3}, p99 {:.3}, max {:.3}",
        results["requests"],
        results["failed"],
        results["dropped"],
        results["rps"],
        latency("p50"),
        latency("p90"),
        latency("p95"),
        latency("p99"),
        latency("max"),
    )
}
