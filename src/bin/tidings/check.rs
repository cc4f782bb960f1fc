//! `tidings check`: the mistakes of `tidings.toml` and `channels.toml`, all at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidings::auth;
use tidings::config::report;
use tidings::worker::runner::stress::StressRunner;

use crate::BAD_CONFIGURATION;
use crate::client::print_line;

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The settings file; ./tidings.toml if there is one.
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The channels file; the one that the settings name, or the compiled-in one.
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let checked = report::check_all(args.config.as_deref(), args.channels.as_deref());
    // What only the runners understand.
    let checked = checked.and_then(|summary| match StressRunner::new(&summary.settings.stress.allow) {
        Ok(_) => Ok(summary),
        Err(mistake) => Err(vec![mistake.to_string()]),
    });
    // The keys themselves lie in files.
    let checked = checked.and_then(|summary| match auth::check(&summary.settings.auth) {
        Ok(()) => Ok(summary),
        Err(mistake) => Err(vec![mistake.to_string()]),
    });
    match checked {
        Ok(summary) => {
            for warning in &summary.warnings {
                eprintln!("warning: {warning}");
            }
            let settings = file(summary.config.as_deref(), "no tidings.toml, so the defaults");
            let channels = file(summary.channels.as_deref(), "the compiled-in channels");
            let n = summary.rules.namespaces().len();
            let told =
                format_args!("settings: {settings}\nchannels: {channels}, {n} of them\nno mistakes found");
            let _ = print_line(told);
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            eprintln!("tidings: {} mistake(s) found", mistakes.len());
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

fn file(path: Option<&Path>, absent: &str) -> String {
    path.map_or_else(|| absent.to_owned(), |path| path.display().to_string())
}
