//! Reports that a command leaves behind: JUnit XML, or the JSON of Jest, Vitest, Playwright Test and k6.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::worker::progress::{Progress, ProgressState};
use crate::worker::runner::parse::{junit, report};

/// Takes the test cases of all reports for what was seen of them on the way; what there is to say about reports that
/// cannot be used. An old report tells of an old run.
pub(super) fn take(reports: &[PathBuf], since: SystemTime, progress: &Progress) -> Vec<String> {
    let mut state = ProgressState::default();
    let mut remarks = Vec::new();
    for path in reports {
        if let Err(remark) = read(path, since, &mut state) {
            remarks.push(format!("{} {remark}", path.display()));
        }
    }
    if remarks.is_empty() && state.counts.done() > 0 {
        progress.update(|known| {
            known.counts = state.counts;
            known.progress = state.progress;
            known.failures = state.failures;
            known.slowest = state.slowest;
        });
    }
    remarks
}

fn read(path: &Path, since: SystemTime, state: &mut ProgressState) -> Result<(), String> {
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let written =
        file.metadata().and_then(|found| found.modified()).map_err(|e| format!("cannot be read: {e}"))?;
    // Clocks of file systems may be coarse.
    if written + std::time::Duration::from_secs(1) < since {
        return Err("was not written by this run, and is not read".to_owned());
    }
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(|e| format!("cannot be read: {e}"))?;
    if start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        report::read(file, state).map_err(|e| format!("is no report of JSON that can be read: {e}"))
    } else {
        junit::read(file, state).map_err(|e| format!("is no report of JUnit: {e}"))
    }
}
