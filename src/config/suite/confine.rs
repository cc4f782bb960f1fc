//! What a suite's command may use up: resources of the machine, and room in the log.

use std::time::Duration;

use serde::Deserialize;

use super::InvalidSuite;

/// Limits of each process, by the names of `setrlimit(2)`; none where absent. Soft and hard: no process of the
/// command can raise them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlimits {
    /// Time on a processor; after it the process is killed.
    #[serde(deserialize_with = "super::duration")]
    pub cpu: Option<Duration>,
    /// Bytes of address space.
    #[serde(rename = "as")]
    pub address_space: Option<u64>,
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes and threads of the user, all together; nothing holds root back.
    pub nproc: Option<u64>,
    /// Bytes of a file that it writes.
    pub fsize: Option<u64>,
    /// Bytes of a core dump.
    pub core: Option<u64>,
}

impl Rlimits {
    /// Each limit that is set, by its name.
    #[must_use]
    pub fn set(&self) -> Vec<(&'static str, u64)> {
        let named = [
            ("cpu", self.cpu.map(|time| time.as_secs())),
            ("as", self.address_space),
            ("nofile", self.nofile),
            ("nproc", self.nproc),
            ("fsize", self.fsize),
            ("core", self.core),
        ];
        named.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect()
    }

    pub(super) fn check(&self) -> Result<(), InvalidSuite> {
        // Below these a program cannot even begin.
        let least = [
            ("rlimits.cpu", self.cpu.map(|time| time.as_secs()), 1, "at least \"1s\""),
            ("rlimits.as", self.address_space, 1 << 20, "at least 1048576 bytes"),
            ("rlimits.nofile", self.nofile, 3, "at least 3"),
            ("rlimits.nproc", self.nproc, 1, "at least 1"),
        ];
        for (field, found, min, expected) in least {
            if let Some(found) = found.filter(|found| *found < min) {
                return Err(InvalidSuite::OutOfRange { field, found, expected: expected.to_owned() });
            }
        }
        Ok(())
    }
}

/// How much of a command's output the log takes. What is left out is said in its place; the end always comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputLimits {
    /// Of one line.
    pub line_bytes: usize,
    /// In a second, and at once after a silence.
    pub bytes_per_second: u64,
    /// Of one attempt.
    pub total_bytes: u64,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { line_bytes: 4096, bytes_per_second: 256 * 1024, total_bytes: 16 * 1024 * 1024 }
    }
}

impl OutputLimits {
    pub(super) fn check(&self) -> Result<(), InvalidSuite> {
        let bounds = [
            ("output.line_bytes", self.line_bytes as u64, 80, 4096),
            ("output.bytes_per_second", self.bytes_per_second, 4096, 256 * 1024),
            ("output.total_bytes", self.total_bytes, 4096, 1 << 30),
        ];
        for (field, found, min, max) in bounds {
            if !(min..=max).contains(&found) {
                return Err(InvalidSuite::OutOfRange { field, found, expected: format!("{min} to {max}") });
            }
        }
        Ok(())
    }
}
