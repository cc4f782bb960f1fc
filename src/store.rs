//! The embedded store: one SQLite file, one writer thread, a few readers beside it.
//!
//! Every change is an operation that the writer runs; operations that wait together are committed together.
//! An answer is given only after its commit, and what an operation wants the rest of the process to hear
//! ([`WriteTx::after_commit`]) is told in commit order, by the writer itself.
//!
//! What survives: with `synchronous = normal` (the default) everything that was acknowledged survives the end
//! of the process, `kill -9` included; a host that loses its power may lose the last commits, and the store
//! then starts with new epochs, so that nobody mistakes the gap for a whole past. With `full` every commit is
//! on the disk before it is acknowledged, and the epochs stay.

mod bytes;
mod channels;
mod checkpoint;
mod convert;
pub mod examine;
mod merge;
mod open;
mod pack;
mod packs;
mod places;
mod run;
mod runs;
mod waste;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use crate::config::settings::Synchronous;
use crate::fault::{Cause, Fault};
pub(crate) use channels::ChannelRow;
pub use open::OpenError;
pub(crate) use pack::Stored;
pub use packs::StoredMessage;
use places::Recent;
pub use places::{Place, ReadTx};
pub use writer::WriteTx;
pub(crate) use writer::{MERGE_STEP, Version};
use writer::{Operation, WriteOp};

/// How many operations may wait for the writer; beyond it, callers wait (back-pressure).
const WRITE_QUEUE: usize = 4096;
/// How many reads run at once.
const READERS: usize = 4;

/// Why the store did not do what it was asked. Nothing of the operation was stored, unless said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk.
    #[error("the disk that holds {path} is full")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path} is damaged ({detail}); stop the server, restore a backup or move the file away")]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// The disk or the operating system refused.
    #[error("{path} cannot be used: {detail}")]
    Io {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// The store was closed; the operation may or may not have been stored.
    #[error("the store is closed")]
    Closed,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::Full(Cause::new(error)),
            _ => Self::Unavailable(Cause::new(error)),
        }
    }
}

/// The open store. Clones share it; the last one to go closes it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    // Taken at close, so that the writer sees the end of its queue.
    writes: Mutex<Option<mpsc::Sender<Operation>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
    recent: Recent,
    permits: Arc<Semaphore>,
}

/// A reading connection on loan. It goes back before its permit does, even if its caller has gone or the read
/// panics: whoever gets a permit finds a connection.
struct Reader {
    shared: Arc<Shared>,
    conn: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.shared.readers).extend(self.conn.take());
    }
}

impl Store {
    /// Opens, and if need be creates, the store in the directory `dir`.
    ///
    /// The store belongs to one process at a time.
    pub fn open(dir: &Path, synchronous: Synchronous) -> Result<Self, OpenError> {
        let opened = open::open(dir, synchronous)?;
        let readers = (0..READERS).map(|_| open::reader(&opened.path)).collect::<Result<Vec<_>, _>>()?;
        let (writes, queue) = mpsc::channel(WRITE_QUEUE);
        let path = opened.path.clone();
        let recent = Recent::none_after(opened.mark);
        let writer = writer::start(opened, recent.clone(), queue)?;
        let shared = Shared {
            path,
            writes: Mutex::new(Some(writes)),
            writer: Mutex::new(Some(writer)),
            readers: Mutex::new(readers),
            recent,
            permits: Arc::new(Semaphore::new(READERS)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs `apply` in the writer and answers once its changes are committed.
    ///
    /// `apply` may run more than once, each time on a state without its earlier changes. A value that it
    /// returns, `Err` of its own included, is an answer like any other and is committed.
    pub async fn write<T, F>(&self, apply: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut WriteTx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let sender = lock(&self.shared.writes).clone().ok_or(StoreError::Closed)?;
        let op = WriteOp { apply, out: None, reply: Some(reply) };
        sender.send(Box::new(op)).await.map_err(|_| StoreError::Closed)?;
        drop(sender);
        let (result, _operation) = answer.await.map_err(|_| StoreError::Closed)?;
        result
    }

    /// Runs `read` on one of the readers, in a transaction of its own: it sees one committed state.
    pub async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_with(|| (), move |conn, ()| read(conn)).await
    }

    /// Takes what `before` gives, begins the transaction only then, and hands both to `read`.
    async fn read_with<B, T>(
        &self,
        before: impl FnOnce() -> B + Send + 'static,
        read: impl FnOnce(&Connection, &B) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
    {
        let permit = self.shared.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let mut reader = Reader { shared: self.shared.clone(), conn: None, _permit: permit };
        let task = tokio::task::spawn_blocking(move || {
            let conn = lock(&reader.shared.readers).pop().ok_or(StoreError::Closed)?;
            let before = before();
            let result = in_read_transaction(reader.conn.insert(conn), |conn| read(conn, &before));
            result.map_err(|e| classify(&reader.shared.path, &e))
        });
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// The same for who reads channels and their messages: `read` also sees what the tables do not know yet.
    pub async fn read_places<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let recent = self.shared.recent.clone();
        let before = move || {
            let tails = recent.tails();
            let upto = tails.open.upto();
            (tails, upto)
        };
        self.read_with(before, move |conn, (tails, upto)| read(&ReadTx::new(conn, tails, *upto)?)).await
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Commits what was queued, marks the store as cleanly closed and waits for the writer to end.
    pub async fn close(&self) {
        lock(&self.shared.writes).take();
        let writer = lock(&self.shared.writer).take();
        if let Some(writer) = writer {
            let ended = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the store's writer ended by a panic");
            }
        }
        self.shared.permits.close();
    }
}

fn in_read_transaction<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let tx = conn.unchecked_transaction()?;
    let value = read(&tx)?;
    tx.commit()?;
    Ok(value)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these locks guard is replaced as a whole, never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns SQLite's error into what a caller can act on.
fn classify(path: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    let path = path.to_path_buf();
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, detail },
        _ => StoreError::Io { path, detail },
    }
}
