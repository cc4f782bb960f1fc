//! The way beside the output on which runners tell of their tests: a named pipe, and our plugin for pytest.
//!
//! The directory belongs to this run alone and goes with it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::worker::runner::parse::EVENTS_ENV;

/// The plugin's module.
const PLUGIN: &str = "tidings_reporter";
const PLUGIN_SOURCE: &str = include_str!("tidings_reporter.py");
const BUFFER: usize = 64 * 1024;
/// What we write at the end; no JSON has it.
const END: u8 = 4;

/// The pipe, and what a command needs to know of it.
#[derive(Debug)]
pub(super) struct Side {
    directory: TempDir,
    pipe: PathBuf,
    receiver: Receiver,
    is_closed: AtomicBool,
}

impl Side {
    /// A pipe that nobody writes to yet.
    pub(super) fn open() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tidings-run-").tempdir()?;
        let pipe = directory.path().join("events");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Open for both: no writer ever waits for a reader, and the last writer's end is not the end.
        let receiver = OpenOptions::new().read_write(true).open_receiver(&pipe)?;
        Ok(Self { directory, pipe, receiver, is_closed: AtomicBool::new(false) })
    }

    /// What is added to the environment of `argv`.
    pub(super) fn environment(&self, argv: &[OsString]) -> io::Result<Vec<(&'static str, OsString)>> {
        let mut added = vec![(EVENTS_ENV, self.pipe.clone().into_os_string())];
        if names_pytest(argv) {
            let module = self.directory.path().join(format!("{PLUGIN}.py"));
            std::fs::write(module, PLUGIN_SOURCE)?;
            let paths = std::env::var_os("PYTHONPATH").unwrap_or_default();
            let paths = std::iter::once(self.directory.path().to_path_buf())
                .chain(std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()));
            added.push(("PYTHONPATH", std::env::join_paths(paths).map_err(io::Error::other)?));
            let mut options = std::env::var_os("PYTEST_ADDOPTS").unwrap_or_default();
            options.push(if options.is_empty() { "-p " } else { " -p " });
            options.push(PLUGIN);
            added.push(("PYTEST_ADDOPTS", options));
        }
        Ok(added)
    }

    /// Takes the bytes that come, until [`Self::close`] says that none follow.
    pub(super) async fn read(&self, mut take: impl FnMut(&[u8])) {
        let mut buffer = vec![0; BUFFER];
        while self.receiver.readable().await.is_ok() {
            // Nothing there after all is waited for again.
            let Ok(n) = self.receiver.try_read(&mut buffer) else { continue };
            let end = buffer[..n].iter().position(|byte| *byte == END);
            match end.filter(|_| self.is_closed.load(Ordering::Relaxed)) {
                Some(end) => return take(&buffer[..end]),
                None => take(&buffer[..n]),
            }
        }
    }

    /// Lets [`Self::read`] end behind everything that was written before.
    pub(super) async fn close(&self) -> io::Result<()> {
        self.is_closed.store(true, Ordering::Relaxed);
        let sender = OpenOptions::new().open_sender(&self.pipe)?;
        loop {
            sender.writable().await?;
            match sender.try_write(&[END]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return written.map(drop),
            }
        }
    }
}

/// Whether a word of the command is pytest: what runs it otherwise may keep our module from it, which would break it.
fn names_pytest(argv: &[OsString]) -> bool {
    argv.iter().any(|word| {
        let name = Path::new(word).file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| matches!(name, "pytest" | "py.test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    #[test]
    fn only_what_names_pytest_gets_the_plugin() {
        for command in
            [&["pytest", "-x"][..], &["/usr/bin/python3", "-m", "pytest"], &["uv", "run", "py.test"]]
        {
            assert!(names_pytest(&words(command)), "{command:?}");
        }
        for command in [&["make", "test"][..], &["python3", "-m", "unittest"], &["pytest-watch"], &[]] {
            assert!(!names_pytest(&words(command)), "{command:?}");
        }
    }

    #[tokio::test]
    async fn what_is_written_to_the_pipe_comes_out_and_nobody_waits() {
        let side = Side::open().expect("a pipe");
        let added = side.environment(&words(&["make"])).expect("an environment");
        assert_eq!(added.len(), 1);
        std::fs::write(&added[0].1, "one\ntwo\n").expect("written");
        let mut taken = Vec::new();
        side.close().await.expect("closed");
        side.read(|bytes| taken.extend_from_slice(bytes)).await;
        assert_eq!(taken, b"one\ntwo\n");
        let with_plugin = side.environment(&words(&["pytest"])).expect("an environment");
        assert!(with_plugin.iter().any(|(name, value)| {
            *name == "PYTEST_ADDOPTS" && value.to_string_lossy().ends_with("-p tidings_reporter")
        }));
    }
}
