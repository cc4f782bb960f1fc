//! Checkpoints: what was committed is copied from the log into the database, by a thread beside the writer.
//!
//! A checkpoint waits for the disk, for as long as a disk takes to write what has come since the last one. The writer
//! goes on meanwhile. But the log can begin anew only when all of it is copied, which never happens beside a writer
//! that never pauses: when the log has become long, the writer copies what is left itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::{OpenError, open};

/// After how many pages of the log there is another checkpoint. A page that many commits change is copied once for
/// all of them; 8 MiB of pages of 4 KiB.
const STEP: i32 = 2048;
/// How many pages the log has when the writer checkpoints by itself: 64 MiB.
const LONG: i32 = 16_384;

/// The checkpoints of a store.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The length of the log in pages, after the last commit.
    pages: Arc<AtomicI32>,
    /// The same when there was last a checkpoint.
    done_at: i32,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts the thread for the database at `path`, whose writer's connection is `conn`.
    pub(super) fn start(path: &Path, conn: &mut Connection) -> Result<Self, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.to_path_buf(), source };
        let pages = Arc::new(AtomicI32::new(0));
        let noted = pages.clone();
        // It takes the place of SQLite's own checkpoints, which the writer would wait for.
        conn.wal_hook(Some(move |_: &mut _, pages| {
            noted.store(pages, Ordering::Relaxed);
            Ok(())
        }))
        .map_err(sqlite)?;
        let own = open::connect(path)?;
        // One that waits is enough: it copies all that there is.
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&own, &woken))
            .map_err(OpenError::Thread)?;
        Ok(Self { pages, done_at: 0, wake, thread })
    }

    /// Has the log copied if it has grown enough. The writer calls it between its commits.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.done_at {
            // The log has begun anew.
            self.done_at = 0;
        }
        if pages - self.done_at < STEP {
            return;
        }
        self.done_at = pages;
        if pages >= LONG {
            checkpoint(conn);
        } else {
            let _ = self.wake.try_send(());
        }
    }

    /// Ends the thread, after the checkpoint that it may be at.
    pub(super) fn end(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the store's checkpoints ended by a panic");
        }
    }
}

fn run(conn: &Connection, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        checkpoint(conn);
    }
}

fn checkpoint(conn: &Connection) {
    // Nothing is lost by one that fails: the log keeps what is not copied.
    if let Err(error) = conn.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        tracing::warn!(%error, "the store's log could not be copied into the database; it stays and is tried again");
    }
}
