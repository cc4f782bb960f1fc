//! What processes cost: CPU time and memory of the server, from `/proc`, and the CPU time of a thread of our own.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit};
use rustix::time::ClockId;

/// Descriptors that are not connections: the program's own, those of the publisher, and some to spare.
const SPARE_FILES: u64 = 100;

/// A process whose cost is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pid: u32,
}

/// Its memory in kB: in RAM now, and the most that it ever was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) rss: u64,
    pub(super) highest: u64,
}

impl Process {
    /// The process with this id, if there is one.
    pub(super) fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self { pid };
        process.cpu().with_context(|| format!("there is no process {pid} whose cost could be measured"))?;
        Ok(process)
    }

    pub(super) fn pid(self) -> u32 {
        self.pid
    }

    /// The CPU time that all of its threads have used, in the program and in the kernel.
    pub(super) fn cpu(self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let ticks = cpu_ticks(&stat).context("/proc/PID/stat is not as it is known to be")?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
    }

    pub(super) fn memory(self) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        memory(&status).context("/proc/PID/status is not as it is known to be")
    }
}

/// The process that `parent` started last, if any: how the server behind a guard is found.
pub(super) fn child_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        fields(&stat).and_then(|mut fields| fields.nth(1)?.parse().ok()) == Some(parent)
    })
    .max()
}

/// The fields of `/proc/PID/stat` after the name, which stands in parentheses and may hold anything.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace())
}

/// `utime` and `stime`, fields 14 and 15 of proc(5), of which two precede what `fields` gives.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn memory(status: &str) -> Option<Memory> {
    let kb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { rss: kb("VmRSS:")?, highest: kb("VmHWM:")? })
}

/// The CPU time that the calling thread has used.
pub(super) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Raises the limit of open files as far as it goes, and says so if `connections` do not fit.
pub(super) fn allow_connections(connections: usize) -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).context("the limit of open files stays as it is")?;
    let needed = connections as u64 + SPARE_FILES;
    match limit.maximum {
        Some(most) if most < needed => anyhow::bail!(
            "{connections} clients need {needed} open files, and {most} are allowed (ulimit -Hn); \
             raise that limit or take fewer clients"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 6 7 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_kb() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory(status), Some(Memory { rss: 1024, highest: 2048 }));
        assert_eq!(memory("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let own = Process::new(std::process::id()).expect("this process");
        assert!(own.memory().expect("memory").rss > 0);
        assert!(thread_cpu() > Duration::ZERO);
        assert!(Process::new(u32::MAX).is_err());
    }
}
