//! Examination: what a store's file is like, without opening it as a server does. Another process may have it open.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::open::{APPLICATION_ID, MIGRATIONS};
use super::packs;

/// So many faults are told at most.
const MOST_DAMAGE: u32 = 5;

/// Why a file cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// It is something else.
    #[error("{0} is not a database of tidings")]
    Foreign(PathBuf),
    /// SQLite refused.
    #[error("{path} cannot be read: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// What a store's file is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Its schema.
    pub schema: usize,
    /// The newest schema that this program knows.
    pub known: usize,
    /// How SQLite keeps its log.
    pub journal: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// What is wrong with it; nothing if it is sound.
    pub damage: Vec<String>,
}

/// Looks at the store in `dir`, if there is one. It reads all of it.
pub fn examine(dir: &Path) -> Result<Option<Examined>, ExamineError> {
    let path = dir.join("tidings.db");
    let Ok(file) = std::fs::metadata(&path) else { return Ok(None) };
    let sqlite = |source| ExamineError::Sqlite { path: path.clone(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
    let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    if number("application_id")? != i64::from(APPLICATION_ID) {
        return Err(ExamineError::Foreign(path.clone()));
    }
    let schema = usize::try_from(number("user_version")?).unwrap_or(0);
    let journal = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sqlite)?;
    let damage = damage(&conn).map_err(sqlite)?;
    let log = std::fs::metadata(dir.join("tidings.db-wal"));
    Ok(Some(Examined {
        schema,
        known: MIGRATIONS.len(),
        journal,
        bytes: file.len(),
        log_bytes: log.map_or(0, |log| log.len()),
        damage,
    }))
}

fn damage(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = conn.prepare(&format!("PRAGMA quick_check({MOST_DAMAGE})"))?;
    let found = check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) => {
            let mut damage: Vec<String> = found.into_iter().filter(|line| line != "ok").collect();
            if damage.is_empty() {
                damage = packs::examine(conn, MOST_DAMAGE as usize)?;
            }
            Ok(damage)
        }
        // So damaged that it cannot even be checked.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            Ok(vec![error.to_string()])
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_store_and_a_foreign_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(examine(dir.path()).unwrap(), None);
        let path = dir.path().join("tidings.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
        assert!(matches!(examine(dir.path()), Err(ExamineError::Foreign(_))));
        std::fs::write(&path, "this is a text file that is long enough to be no database at all").unwrap();
        assert!(matches!(examine(dir.path()), Err(ExamineError::Sqlite { .. })));
    }
}
