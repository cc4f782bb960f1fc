//! Opening the store: the directory, the lock, the file's identity, its schema, and how it was left.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::convert::convert;
use super::merge::merge_left;
use crate::config::settings::Synchronous;

/// Marks the file as ours: "tdng" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x7464_6e67;
/// Each entry brings the schema from its index to the next version. Entries are only ever added.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
];
/// The step after which rows are brought into another format, which SQL cannot.
const PACKS: usize = 6;

/// Why the store cannot be opened: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or written.
    #[error(
        "the data directory {dir} cannot be used: {source}; choose another with --data-dir, or make it writable"
    )]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "the data directory {dir} is in use by another tidings; stop that one, or choose another --data-dir"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a database of tidings; move it away or choose another --data-dir")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has schema {found}, this program knows up to {known}: it was written by a newer tidings; \
         use that one, or another --data-dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema of this program.
        known: i64,
    },
    /// SQLite refused.
    #[error("{path} cannot be opened: {source}; if the file is damaged, restore a backup or move it away")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The writer's thread could not be started.
    #[error("the store's writer cannot be started: {0}")]
    Thread(io::Error),
}

/// What the writer takes over.
pub(super) struct Opened {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) lock: File,
    /// The `seq` of the last message; the tables know of all of them.
    pub(super) mark: i64,
}

pub(super) fn open(dir: &Path, synchronous: Synchronous) -> Result<Opened, OpenError> {
    let lock = lock_directory(dir)?;
    let path = dir.join("tidings.db");
    let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
    let mut conn = Connection::open(&path).map_err(sqlite)?;
    check_identity(&conn, &path)?;
    configure(&conn).map_err(sqlite)?;
    migrate(&mut conn, &path)?;
    note_start(&mut conn, synchronous).map_err(sqlite)?;
    let mark = merge_left(&mut conn).map_err(sqlite)?;
    Ok(Opened { conn, path, lock, mark })
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    // Opened for writing all the same: a reader of a WAL database may have to make its shared-memory file.
    let conn = connect(path)?;
    let only_reads = conn.pragma_update(None, "query_only", true);
    only_reads.map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })?;
    Ok(conn)
}

/// One more connection to a store that is open.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_path_buf(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    configure(&conn).map_err(sqlite)?;
    Ok(conn)
}

fn lock_directory(dir: &Path) -> Result<File, OpenError> {
    let refused = |source| OpenError::Directory { dir: dir.to_path_buf(), source };
    fs::create_dir_all(dir).map_err(refused)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("tidings.lock"))
        .map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

fn check_identity(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let foreign = || OpenError::Foreign { path: path.to_path_buf() };
    let application_id: i32 = match conn.pragma_query_value(None, "application_id", |row| row.get(0)) {
        Ok(id) => id,
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => return Err(foreign()),
        Err(source) => return Err(OpenError::Sqlite { path: path.to_path_buf(), source }),
    };
    if application_id == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })?;
    if application_id == 0 && tables == 0 { Ok(()) } else { Err(foreign()) }
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(64);
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // 16 MiB of page cache.
    conn.pragma_update(None, "cache_size", -16_384)
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_path_buf(), source };
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known || found < 0 {
        return Err(OpenError::Newer { path: path.to_path_buf(), found, known });
    }
    conn.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    // A WAL that a burst has blown up is cut back at the next checkpoint.
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024).map_err(sqlite)?;
    let pending = MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(usize::MAX));
    for (version, step) in pending {
        let tx = conn.transaction().map_err(sqlite)?;
        tx.execute_batch(step).map_err(sqlite)?;
        if version + 1 == PACKS {
            convert(&tx).map_err(sqlite)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        tx.pragma_update(None, "user_version", i64::try_from(version + 1).unwrap_or(known))
            .map_err(sqlite)?;
        tx.commit().map_err(sqlite)?;
    }
    Ok(())
}

fn pragma(synchronous: Synchronous) -> &'static str {
    match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    }
}

/// Gives every channel a new epoch if the host may have lost acknowledged messages since the last start.
fn note_start(conn: &mut Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    // On the disk before anything else is written, or the next start would take a crash for a clean end.
    conn.pragma_update(None, "synchronous", "FULL")?;
    let tx = conn.transaction()?;
    let boot = boot_id();
    let last: Option<(Option<String>, bool, String)> = tx
        .query_row("SELECT boot_id, clean, synchronous FROM run WHERE id = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    if let Some((last_boot, clean, last_synchronous)) = last
        && !clean
        && last_synchronous != pragma(Synchronous::Full)
        && (last_boot != boot || boot.is_none())
    {
        let channels = tx.execute("UPDATE channel SET epoch = lower(hex(randomblob(6)))", [])?;
        // What is left of the messages stands where it stood, and so do the notifications that they are.
        tx.execute(
            "UPDATE inbox SET epoch = channel.epoch FROM channel WHERE channel.name = inbox.channel",
            [],
        )?;
        tracing::warn!(
            channels,
            "the host went down hard and may have lost acknowledged messages: every channel starts a new epoch"
        );
    }
    tx.execute(
        "INSERT INTO run (id, boot_id, clean, synchronous) VALUES (1, ?1, 0, ?2)
         ON CONFLICT (id) DO UPDATE SET boot_id = ?1, clean = 0, synchronous = ?2",
        (boot, pragma(synchronous)),
    )?;
    tx.commit()?;
    conn.pragma_update(None, "synchronous", pragma(synchronous))
}

/// Notes that nothing is missing, at the very end.
pub(super) fn mark_clean(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE run SET clean = 1 WHERE id = 1", [])?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Names this boot of the host; `None` where the system does not tell.
fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests;
