//! One look at the whole configuration: what `tidings check` tells.

use std::path::{Path, PathBuf};

use super::channels::Rules;
use super::settings::{Settings, Sources};
use crate::model::event::{JobEvent, TEST_HISTORY_UPDATES, TEST_UPDATES, TestEvent};

/// A configuration without mistakes.
#[derive(Debug)]
pub struct Summary {
    /// The file of the settings; none if there is none and the defaults hold.
    pub config: Option<PathBuf>,
    /// The file of the channels; none if the compiled-in rules hold.
    pub channels: Option<PathBuf>,
    /// What was read.
    pub settings: Settings,
    /// What was read.
    pub rules: Rules,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<String>,
}

/// Reads the settings and the channels as the server would, the process' environment included. An error lists
/// the mistakes of both, a line for each.
pub fn check_all(config: Option<&Path>, channels: Option<&Path>) -> Result<Summary, Vec<String>> {
    check(&Sources::new(config).with_process_environment().with_flag("--channels", "channels", channels))
}

/// As [`check_all`], for any sources.
pub fn check(sources: &Sources) -> Result<Summary, Vec<String>> {
    // The channels are looked at even if the settings are wrong: their path may well be right.
    let (settings, mistakes) = sources.read();
    let mut lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let rules = match &settings.channels {
        Some(path) => Rules::load(path),
        None => Ok(Rules::builtin()),
    };
    match rules {
        Ok(rules) if lines.is_empty() => Ok(Summary {
            config: sources.file(),
            channels: settings.channels.clone(),
            warnings: warnings(&rules),
            settings,
            rules,
        }),
        Ok(_) => Err(lines),
        Err(e) => {
            lines.extend(e.to_string().lines().map(str::to_owned));
            Err(lines)
        }
    }
}

const JOB_EVENTS: [JobEvent; 7] = [
    JobEvent::Added,
    JobEvent::Started,
    JobEvent::Progress,
    JobEvent::Completed,
    JobEvent::Failed,
    JobEvent::Cancelled,
    JobEvent::Retrying,
];

/// Everything that the queue sends by itself, and nobody would see without a channel for it.
fn warnings(rules: &Rules) -> Vec<String> {
    let mirrored = |channel| {
        let told = move |event: &TestEvent| event.mirrors(false).contains(&channel);
        TestEvent::ALL.into_iter().filter(told).map(TestEvent::name).collect::<Vec<_>>()
    };
    let jobs = JOB_EVENTS.map(JobEvent::name);
    let sent = [
        ("queue-updates", "queue-updates", jobs.to_vec()),
        ("job-status-{jobId}", "job-status-x", jobs.to_vec()),
        ("test-progress-{testId}", "test-progress-x", TestEvent::ALL.map(TestEvent::name).to_vec()),
        (TEST_UPDATES, TEST_UPDATES, mirrored(TEST_UPDATES)),
        (TEST_HISTORY_UPDATES, TEST_HISTORY_UPDATES, mirrored(TEST_HISTORY_UPDATES)),
        ("stress-test-{testId}", "stress-test-x", vec![TestEvent::Progress.name()]),
    ];
    let mut warnings = Vec::new();
    for (shown, channel, events) in sent {
        let Some(found) = rules.resolve(channel) else {
            warnings.push(format!("no pattern matches `{shown}`, so what the queue sends there is lost"));
            continue;
        };
        let missing: Vec<_> = events.into_iter().filter(|event| !found.namespace.allows(event)).collect();
        if !missing.is_empty() {
            let name = &found.namespace.name;
            warnings
                .push(format!("`{name}` does not list {}, which the queue sends there", missing.join(", ")));
        }
    }
    if let Some(found) = rules.resolve("test-progress-x")
        && !found.namespace.snapshot
    {
        let name = &found.namespace.name;
        warnings
            .push(format!("`{name}` has no snapshot, so a page opened in mid-run does not see the state"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(text: &str) -> (tempfile::TempDir, Result<Summary, Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("channels.toml"), text).unwrap();
        std::fs::write(dir.path().join("tidings.toml"), "channels = 'channels.toml'\n").unwrap();
        let result = check(&Sources::new(Some(&dir.path().join("tidings.toml"))));
        (dir, result)
    }

    #[test]
    fn the_defaults_give_no_warning() {
        let summary = check(&Sources::new(None)).unwrap();
        assert_eq!(summary.warnings, [""; 0]);
        assert!(summary.channels.is_none());
    }

    #[test]
    fn what_the_queue_sends_in_vain_is_warned_of() {
        let (_dir, result) = channels(
            "[channel.t]\npattern = 'test-progress-{x}'\nevents = ['test:*']\n\
             [channel.q]\npattern = 'queue-updates'\nevents = ['queue:job:added']\n",
        );
        let warnings = result.unwrap().warnings;
        assert!(warnings.iter().any(|w| w.contains("`job-status-{jobId}`")), "{warnings:?}");
        assert!(
            warnings.iter().any(|w| w.starts_with("`q` does not list queue:job:started, ")),
            "{warnings:?}"
        );
        assert!(warnings.iter().any(|w| w.starts_with("`t` has no snapshot")), "{warnings:?}");
        assert!(!warnings.iter().any(|w| w.starts_with("`t` does not list")), "{warnings:?}");
    }

    #[test]
    fn the_mistakes_of_both_files_are_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.toml"), "a = 1\nb = 2\n").unwrap();
        std::fs::write(dir.path().join("t.toml"), "channels = 'c.toml'\nlistn = 1\n").unwrap();
        let lines = check(&Sources::new(Some(&dir.path().join("t.toml")))).unwrap_err();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("t.toml:2:1: `listn`: unknown key; did you mean `listen`?"), "{lines:?}");
        assert!(lines[1].contains("c.toml:1:1: unknown key `a`"), "{lines:?}");
    }
}
