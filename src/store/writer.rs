//! The writer: one thread that owns the writing connection and commits in groups.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::merge::Added;
use super::open::{Opened, mark_clean};
use super::places::{Place, Recent};
use super::{OpenError, StoreError, classify};
use crate::metrics;

/// How many operations share a commit at most. A larger group would only make its first operation wait longer:
/// at this size the commit is a small part of the cost already.
const GROUP_MAX: usize = 512;
/// How many bytes of places are in memory before they are merged: those of some 30,000 messages. More would make the
/// writer wait longer at a time, and save little.
const MERGE_BYTES: usize = 2 << 20;

/// What an operation works with: the open transaction, and the news that wait for its commit.
#[derive(Debug)]
pub struct WriteTx<'a> {
    conn: &'a Connection,
    after_commit: &'a mut Effects,
    added: &'a mut Added,
    recent: &'a Recent,
    rollbacks: u64,
}

/// The state of the tables as the writer sees it: two that are equal are of the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    changes: u64,
    rollbacks: u64,
}

#[derive(Default)]
struct Effects(Vec<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Effects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} effects", self.0.len())
    }
}

impl<'a> WriteTx<'a> {
    /// The connection, inside of the group's transaction.
    #[must_use]
    pub fn conn(&self) -> &'a Connection {
        self.conn
    }

    /// What the tables are like now.
    pub(crate) fn version(&self) -> Version {
        Version { changes: self.conn.total_changes(), rollbacks: self.rollbacks }
    }

    /// Gives the next message of the table `message` its `seq`, and notes where it stands; the caller inserts its row.
    pub(crate) fn place(&mut self, channel: i64, offset: u64, conflation_key: Option<Arc<str>>) -> i64 {
        self.added.add(channel, |seq| Place { offset, seq, conflation_key })
    }

    /// Merges the recent places into the table `place`, in this transaction: until the next append it has all of
    /// them. Messages before the oldest one of their channel are removed with it.
    pub fn merge_places(&mut self) -> rusqlite::Result<()> {
        self.added.merge(self.conn, self.recent)
    }

    /// Has `effect` run once the changes are committed: in commit order, on the writer's thread, before the
    /// operation is answered. It must not wait for the store.
    pub fn after_commit(&mut self, effect: impl FnOnce() + Send + 'static) {
        self.after_commit.0.push(Box::new(effect));
    }
}

/// An operation in the writer's queue.
pub(super) type Operation = Box<dyn WriteOperation>;

pub(super) trait WriteOperation: Send + std::fmt::Debug {
    /// Makes the changes; may be called again after a rollback.
    fn apply(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()>;
    /// Answers the caller.
    fn complete(self: Box<Self>, result: Result<(), StoreError>);
}

pub(super) struct WriteOp<T, F> {
    pub(super) apply: F,
    pub(super) out: Option<T>,
    pub(super) reply: Option<oneshot::Sender<Answer<T, F>>>,
}

/// What came of an operation; and the operation, so that its caller's thread frees what that thread allocated:
/// an allocator makes threads wait that free each other's memory.
pub(super) type Answer<T, F> = (Result<T, StoreError>, F);

impl<T, F> std::fmt::Debug for WriteOp<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteOp")
    }
}

impl<T, F> WriteOperation for WriteOp<T, F>
where
    T: Send,
    F: FnMut(&mut WriteTx<'_>) -> rusqlite::Result<T> + Send,
{
    fn apply(&mut self, tx: &mut WriteTx<'_>) -> rusqlite::Result<()> {
        self.out = Some((self.apply)(tx)?);
        Ok(())
    }

    fn complete(mut self: Box<Self>, result: Result<(), StoreError>) {
        let out = self.out.take();
        if let Some(reply) = self.reply.take() {
            // A caller who no longer waits has its reason; what was committed stays.
            let _ = reply.send((result.and_then(|()| out.ok_or(StoreError::Closed)), self.apply));
        }
    }
}

/// The operation that merges recent places, which nobody waits for.
fn merging() -> Operation {
    Box::new(WriteOp { apply: |tx: &mut WriteTx<'_>| tx.merge_places(), out: None, reply: None })
}

/// Starts the writer's thread; it ends when every sender of `queue` is gone.
pub(super) fn start(
    opened: Opened,
    recent: Recent,
    queue: mpsc::Receiver<Operation>,
) -> Result<std::thread::JoinHandle<()>, OpenError> {
    let Opened { mut conn, path, lock, mark } = opened;
    let checkpoints = Checkpoints::start(&path, &mut conn)?;
    let writer =
        Writer { conn, path, recent, next_seq: mark + 1, rollbacks: 0, merge_at: MERGE_BYTES, _lock: lock };
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run(queue, checkpoints))
        .map_err(OpenError::Thread)
}

struct Writer {
    conn: Connection,
    path: PathBuf,
    recent: Recent,
    next_seq: i64,
    rollbacks: u64,
    /// How many bytes of recent places call for the next merge.
    merge_at: usize,
    // Held for as long as the process may write; the operating system lets go of it even after kill -9.
    _lock: File,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Operation>, mut checkpoints: Checkpoints) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while let Some(first) = queue.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_MAX {
                let Ok(next) = queue.try_recv() else { break };
                group.push(next);
            }
            self.commit_group(&mut group);
            self.merge_in_time();
            checkpoints.after_commit(&self.conn);
        }
        checkpoints.end();
        if let Err(error) = self.transaction(&mut [merging()]) {
            tracing::warn!(%error, "recent places could not be merged; the next start does it");
        }
        if let Err(error) = mark_clean(&self.conn) {
            tracing::warn!(%error, "the store could not be marked as cleanly closed");
        }
    }

    /// Commits the group as one. If that fails, each operation gets its own transaction, so that one which
    /// cannot be stored takes no other with it.
    fn commit_group(&mut self, group: &mut Vec<Operation>) {
        let started = std::time::Instant::now();
        match self.transaction(group) {
            Ok(()) => {
                metrics::append_seconds(started.elapsed());
                for op in group.drain(..) {
                    op.complete(Ok(()));
                }
            }
            Err(error) if group.len() == 1 => self.refuse(group, &error),
            Err(_) => {
                for op in group.drain(..) {
                    let mut alone = vec![op];
                    match self.transaction(&mut alone) {
                        Ok(()) => alone.drain(..).for_each(|op| op.complete(Ok(()))),
                        Err(error) => self.refuse(&mut alone, &error),
                    }
                }
            }
        }
    }

    fn transaction(&mut self, group: &mut [Operation]) -> rusqlite::Result<()> {
        let mut effects = Effects::default();
        // A panic must not end the writer: every later change would be refused, and the lock be let go.
        catch_unwind(AssertUnwindSafe(|| self.apply(group, &mut effects)))
            .unwrap_or_else(|_| {
                let detail = Some("a change panicked; the log says where".to_owned());
                Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
                    detail,
                ))
            })
            .inspect_err(|_| self.rollbacks += 1)?;
        for effect in effects.0 {
            if catch_unwind(AssertUnwindSafe(effect)).is_err() {
                tracing::error!("telling of a committed change panicked");
            }
        }
        Ok(())
    }

    fn apply(&mut self, group: &mut [Operation], effects: &mut Effects) -> rusqlite::Result<()> {
        // Dropped without a commit, it rolls back; so does a panic in an operation.
        let tx = rusqlite::Transaction::new_unchecked(&self.conn, rusqlite::TransactionBehavior::Immediate)?;
        let (recent, rollbacks) = (&self.recent, self.rollbacks);
        let mut added = Added::from(self.next_seq);
        for op in group {
            op.apply(&mut WriteTx {
                conn: &tx,
                after_commit: effects,
                added: &mut added,
                recent,
                rollbacks,
            })?;
        }
        tx.commit()?;
        self.next_seq = added.committed(recent);
        Ok(())
    }

    /// Merges recent places before they take too much memory, by itself: if it fails, no append fails with it.
    fn merge_in_time(&mut self) {
        let bytes = self.recent.tail().bytes();
        if bytes < MERGE_BYTES {
            // Somebody else may have merged what could not be merged here.
            self.merge_at = MERGE_BYTES;
        }
        if bytes < self.merge_at {
            return;
        }
        self.merge_at = match self.transaction(&mut [merging()]) {
            Ok(()) => MERGE_BYTES,
            Err(error) => {
                tracing::error!(%error, bytes, "recent places could not be merged and stay in memory");
                bytes + MERGE_BYTES
            }
        };
    }

    fn refuse(&self, group: &mut Vec<Operation>, error: &rusqlite::Error) {
        let error = classify(&self.path, error);
        tracing::error!(%error, "a change could not be stored");
        for op in group.drain(..) {
            op.complete(Err(error.clone()));
        }
    }
}
