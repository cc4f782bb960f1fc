//! The writer: one thread that owns the writing connection and commits in groups.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{mpsc, oneshot};

use super::channels::{self, ChannelRow};
use super::checkpoint::Checkpoints;
use super::merge::Added;
use super::open::{Opened, mark_clean};
use super::pack::Stored;
use super::places::{Recent, Tails};
use super::waste::{self, Gone};
use super::{OpenError, StoreError, classify, runs};
use crate::metrics;
use crate::model::ChannelName;

/// How many operations share a commit at most. A larger group would only make its first operation wait longer:
/// at this size the commit is a small part of the cost already.
const GROUP_MAX: usize = 512;
/// How many bytes of places are in memory before they are merged: those of some 60,000 messages. While they are merged
/// as many may come.
const MERGE_BYTES: usize = 4 << 20;

/// How many messages are merged before others have their turn, a few milliseconds later.
pub(crate) const MERGE_STEP: usize = 2048;

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
    next_seq: i64,
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

    /// What the store is like now.
    pub(crate) fn version(&self) -> Version {
        // When appended messages come to their table is no change of anything.
        let changes = self.conn.total_changes() - self.added.changes();
        Version { changes, rollbacks: self.rollbacks, next_seq: self.added.next_seq() }
    }

    /// How far the channel is.
    pub(crate) fn channel(&self, name: &ChannelName) -> rusqlite::Result<Option<ChannelRow>> {
        let Some(mut row) = channels::find(self.conn, name)? else { return Ok(None) };
        if let Some(end) = self.added.end(row.id, self.recent) {
            end.add_to(&mut row);
        }
        Ok(Some(row))
    }

    /// The same; a channel that is new is made, with an epoch of its own.
    pub(crate) fn ensure_channel(&self, name: &ChannelName, now_ms: i64) -> rusqlite::Result<ChannelRow> {
        match self.channel(name)? {
            Some(row) => Ok(row),
            None => channels::make(self.conn, name, now_ms),
        }
    }

    /// Stores a message in the channel with this number, which keeps `keep` of them. Its offset is the next one.
    pub(crate) fn append(
        &mut self,
        channel: i64,
        keep: u64,
        message: &Stored<'_>,
        conflation_key: Option<Arc<str>>,
    ) -> rusqlite::Result<()> {
        self.added.append(self.conn, channel, keep, message, conflation_key)
    }

    /// Where the channel's message with this id stands, or stood before it was gone.
    pub(crate) fn find_id(
        &mut self,
        channel: i64,
        id: &str,
        made_at_ms: Option<i64>,
    ) -> rusqlite::Result<Option<u64>> {
        self.added.find(self.conn, channel, id, made_at_ms)
    }

    /// Brings what is recent into the tables, in this transaction: until the next append they have all of it. Messages
    /// that their channel has no room for are gone with it.
    pub fn merge_places(&mut self) -> rusqlite::Result<()> {
        self.added.merge_all(self.conn, self.recent)
    }

    /// The same with some of the channels that had something recent when the first of these steps was made, `work`
    /// messages or so; whether there are more.
    pub fn merge_some(&mut self, work: usize) -> rusqlite::Result<bool> {
        self.added.merge_some(self.conn, self.recent, work)
    }

    /// Forgets channels that have no messages and got none since `before_ms`, `max` at most; how many there were.
    pub(crate) fn forget_channels(&self, before_ms: i64, max: usize) -> rusqlite::Result<usize> {
        let mut unused = self
            .conn
            .prepare_cached("SELECT id FROM channel WHERE oldest > top AND touched_at < ?1 LIMIT ?2")?;
        let unused = unused.query_map((before_ms, max), |row| row.get(0))?;
        let mut forgotten = 0;
        for id in unused.collect::<rusqlite::Result<Vec<i64>>>()? {
            // Its row does not know of what is recent.
            if self.added.end(id, self.recent).is_none() {
                forgotten += self.conn.prepare_cached("DELETE FROM channel WHERE id = ?1")?.execute([id])?;
            }
        }
        Ok(forgotten)
    }

    /// Has a channel begin at `offset`, as far as the tables know of it; what stands before is gone. `max` messages at
    /// most; how many there were.
    pub(crate) fn trim(&self, channel: i64, offset: u64, max: u64) -> rusqlite::Result<u64> {
        let row = self
            .conn
            .prepare_cached("SELECT top, oldest FROM channel WHERE id = ?1")?
            .query_row([channel], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((top, oldest)): Option<(u64, u64)> = row else { return Ok(0) };
        let offset = offset.min(top + 1).min(oldest + max);
        let mut gone = Gone::default();
        runs::remove_before(self.conn, channel, oldest, offset, &mut gone)?;
        self.conn
            .prepare_cached("UPDATE channel SET oldest = ?2 WHERE id = ?1 AND oldest < ?2")?
            .execute((channel, offset))?;
        gone.count(self.conn)?;
        Ok(offset.saturating_sub(oldest))
    }

    /// Has back the room of messages that are gone, in `max` packs at most; how many there were.
    pub(crate) fn tidy(&self, max: usize) -> rusqlite::Result<usize> {
        waste::tidy(self.conn, max)
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

/// An operation that merges recent places, which nobody waits for.
fn merging(apply: impl FnMut(&mut WriteTx<'_>) -> rusqlite::Result<()> + Send + 'static) -> Operation {
    Box::new(WriteOp { apply, out: None, reply: None })
}

/// Starts the writer's thread; it ends when every sender of `queue` is gone.
pub(super) fn start(
    opened: Opened,
    recent: Recent,
    queue: mpsc::Receiver<Operation>,
) -> Result<std::thread::JoinHandle<()>, OpenError> {
    let Opened { mut conn, path, lock, mark } = opened;
    let checkpoints = Checkpoints::start(&path, &mut conn)?;
    let writer = Writer {
        conn,
        path,
        recent,
        next_seq: mark + 1,
        appends: 0,
        rollbacks: 0,
        failed_at: None,
        _lock: lock,
    };
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
    /// How many changes of rows were appends.
    appends: u64,
    rollbacks: u64,
    /// How many bytes of recent places there were when they could not be merged.
    failed_at: Option<usize>,
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
        if let Err(error) = self.transaction(&mut [merging(|tx: &mut WriteTx<'_>| tx.merge_places())]) {
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
        let mut added = Added::from(self.next_seq, self.appends);
        for op in group {
            op.apply(&mut WriteTx {
                conn: &tx,
                after_commit: effects,
                added: &mut added,
                recent,
                rollbacks,
            })?;
        }
        added.store(&tx)?;
        tx.commit()?;
        self.appends = added.changes();
        self.next_seq = added.committed(recent);
        Ok(())
    }

    /// Merges recent places before they take too much memory: step by step, between the groups, so that nobody waits for
    /// all of them; and by itself, so that no append fails with it.
    fn merge_in_time(&mut self) {
        loop {
            let Tails { sealed, open } = self.recent.tails();
            let (is_sealed, behind) = (sealed.is_some(), open.bytes());
            let bytes = behind + sealed.map_or(0, |tail| tail.bytes());
            let due = match self.failed_at {
                None => is_sealed || bytes >= MERGE_BYTES,
                // Or somebody else has merged them.
                Some(failed_at) => bytes >= failed_at + MERGE_BYTES || bytes < failed_at,
            };
            if !due {
                return;
            }
            match self.transaction(&mut [merging(|tx: &mut WriteTx<'_>| tx.merge_some(MERGE_STEP).map(drop))])
            {
                Ok(()) => self.failed_at = None,
                Err(error) => {
                    tracing::error!(%error, bytes, "recent places could not be merged and stay in memory");
                    self.failed_at = Some(bytes);
                    return;
                }
            }
            // As much came as is being merged: now it is the others who wait.
            if behind < MERGE_BYTES {
                return;
            }
        }
    }

    fn refuse(&self, group: &mut Vec<Operation>, error: &rusqlite::Error) {
        let error = classify(&self.path, error);
        tracing::error!(%error, "a change could not be stored");
        for op in group.drain(..) {
            op.complete(Err(error.clone()));
        }
    }
}
