//! Rows of the job table, read and written whole.

use std::collections::BTreeMap;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::trace::TraceContext;
use crate::model::{Job, JobId, JobState, Priority, TestId, UserId, WorkerId};
use crate::queue::{JobPage, Lease};

/// A job with what only the queue needs to know.
#[derive(Debug, Clone)]
pub(super) struct JobRow {
    pub(super) job: Job,
    pub(super) seq: i64,
    pub(super) attempt_base: u32,
    pub(super) fence: i64,
    pub(super) event_seq: i64,
    pub(super) cancel_reason: Option<String>,
    pub(super) cancelled_by: Option<UserId>,
    /// Known to whoever holds it outside of all workers.
    pub(super) secret: Option<String>,
}

/// The columns that [`read`] expects, in its order.
const COLUMNS: &str = "seq, id, test_id, test_type, config, state, priority, attempt, max_attempts, timeout_ms, \
     dedupe_key, team_id, user_id, created_at, run_at, started_at, ended_at, worker_id, cancel_requested, error, \
     attempt_base, fence, event_seq, cancel_reason, cancelled_by, traceparent, name, lease_ms, secret";

fn read(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let job = Job {
        job_id: parsed(row, 1, JobId::parse)?,
        test_id: parsed(row, 2, TestId::parse)?,
        test_type: row.get(3)?,
        name: row.get(26)?,
        lease_ms: row.get(27)?,
        config: parsed(row, 4, |text| serde_json::from_str(text))?,
        state: parsed(row, 5, |text| JobState::from_name(text).ok_or(std::fmt::Error))?,
        priority: Priority::from_number(row.get(6)?).map_err(|e| unreadable(6, e))?,
        attempt: row.get(7)?,
        max_attempts: row.get(8)?,
        timeout_ms: row.get(9)?,
        dedupe_key: row.get(10)?,
        team_id: row.get(11)?,
        user_id: optional(row, 12, UserId::parse)?,
        traceparent: row.get::<_, Option<String>>(25)?.and_then(|text| TraceContext::parse(&text)),
        created_at: row.get(13)?,
        run_at: row.get(14)?,
        started_at: row.get(15)?,
        ended_at: row.get(16)?,
        worker_id: optional(row, 17, WorkerId::parse)?,
        cancel_requested: row.get(18)?,
        error: optional(row, 19, |text| serde_json::from_str(text))?,
        waiting: None,
    };
    Ok(JobRow {
        job,
        seq: row.get(0)?,
        attempt_base: row.get(20)?,
        fence: row.get(21)?,
        event_seq: row.get(22)?,
        cancel_reason: row.get(23)?,
        cancelled_by: optional(row, 24, UserId::parse)?,
        secret: row.get(28)?,
    })
}

fn parsed<T, E>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Result<T, E>) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    parse(&text).map_err(|e| unreadable(column, e))
}

fn optional<T, E>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> Result<T, E>,
) -> rusqlite::Result<Option<T>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| parse(&text)).transpose().map_err(|e| unreadable(column, e))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(super) fn find(conn: &Connection, job: &JobId) -> rusqlite::Result<Option<JobRow>> {
    find_where(conn, "id = ?1", job.as_str())
}

pub(super) fn find_by_dedupe_key(conn: &Connection, key: &str) -> rusqlite::Result<Option<JobRow>> {
    find_where(conn, "dedupe_key = ?1", key)
}

/// The job of `test` that has not ended.
pub(super) fn find_active(conn: &Connection, test: &TestId) -> rusqlite::Result<Option<JobRow>> {
    find_where(conn, "test_id = ?1 AND ended_at IS NULL", test.as_str())
}

fn find_where(conn: &Connection, condition: &str, value: &str) -> rusqlite::Result<Option<JobRow>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE {condition}"))?
        .query_row([value], read)
        .optional()
}

/// The job, if `lease` still counts.
pub(super) fn find_leased(conn: &Connection, lease: &Lease) -> rusqlite::Result<Option<JobRow>> {
    Ok(find_held(conn, lease)?.filter(|row| row.job.state == JobState::Running))
}

/// The job, if `lease` is the newest one of it, whether it still counts or not.
pub(super) fn find_held(conn: &Connection, lease: &Lease) -> rusqlite::Result<Option<JobRow>> {
    let row = find(conn, &lease.job_id)?;
    Ok(row.filter(|row| {
        let secret = lease.holder.as_ref().map(|holder| &holder.secret);
        let of_its_test = lease.holder.as_ref().is_none_or(|holder| holder.test_id == row.job.test_id);
        row.fence == lease.fence && row.secret.as_ref() == secret && of_its_test
    }))
}

/// Jobs that fulfil `condition`, whose parameters are `params`.
pub(super) fn select(
    conn: &Connection,
    condition: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<JobRow>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM job {condition}"))?;
    statement.query_map(params, read)?.collect()
}

/// Adds a job; its number is given by the table.
pub(super) fn insert(conn: &Connection, row: &JobRow) -> rusqlite::Result<i64> {
    let job = &row.job;
    conn.prepare_cached(
        "INSERT INTO job (id, test_id, test_type, config, state, priority, attempt, max_attempts, timeout_ms,
           dedupe_key, team_id, user_id, created_at, run_at, attempt_base, fence, event_seq, traceparent,
           name, lease_ms, secret, lane, cancel_requested)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, 0)",
    )?
    .execute(params![
        job.job_id.as_str(),
        job.test_id.as_str(),
        job.test_type,
        serde_json::Value::Object(job.config.clone()).to_string(),
        job.state.name(),
        job.priority.number(),
        job.attempt,
        job.max_attempts,
        job.timeout_ms,
        job.dedupe_key,
        job.team_id,
        job.user_id.as_ref().map(UserId::as_str),
        job.created_at,
        job.run_at,
        row.attempt_base,
        row.fence,
        row.event_seq,
        job.traceparent.map(|trace| trace.to_string()),
        job.name,
        job.lease_ms,
        row.secret,
        job.lane(),
    ])?;
    Ok(conn.last_insert_rowid())
}

/// Writes back what may change in a job's life. `lease_until` counts only while it runs.
pub(super) fn update(conn: &Connection, row: &JobRow, lease_until: Option<i64>) -> rusqlite::Result<()> {
    let job = &row.job;
    let error = job.error.as_ref().and_then(|e| serde_json::to_string(e).ok());
    conn.prepare_cached(
        "UPDATE job SET state = ?2, attempt = ?3, run_at = ?4, started_at = ?5, ended_at = ?6, worker_id = ?7,
           cancel_requested = ?8, error = ?9, attempt_base = ?10, fence = ?11, event_seq = ?12,
           cancel_reason = ?13, cancelled_by = ?14, lease_until = ?15, secret = ?16, priority = ?17
         WHERE seq = ?1",
    )?
    .execute(params![
        row.seq,
        job.state.name(),
        job.attempt,
        job.run_at,
        job.started_at,
        job.ended_at,
        job.worker_id.as_ref().map(WorkerId::as_str),
        job.cancel_requested,
        error,
        row.attempt_base,
        row.fence,
        row.event_seq,
        row.cancel_reason,
        row.cancelled_by.as_ref().map(UserId::as_str),
        lease_until,
        row.secret,
        job.priority.number(),
    ])?;
    Ok(())
}

pub(super) fn list(
    conn: &Connection,
    state: Option<JobState>,
    cursor: Option<i64>,
    limit: usize,
) -> rusqlite::Result<JobPage> {
    let before = cursor.unwrap_or(i64::MAX);
    let mut rows = match state {
        Some(state) => select(
            conn,
            "WHERE state = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
            params![state.name(), before, limit + 1],
        )?,
        None => select(conn, "WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2", params![before, limit + 1])?,
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.seq);
    Ok(JobPage { jobs: rows.into_iter().map(|row| row.job).collect(), next })
}

pub(super) fn counts(conn: &Connection) -> rusqlite::Result<BTreeMap<&'static str, u64>> {
    let mut statement = conn.prepare_cached("SELECT state, n FROM job_count")?;
    let stored = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let mut counts: BTreeMap<_, _> = JobState::ALL.into_iter().map(|s| (s.name(), 0)).collect();
    for entry in stored {
        let (state, n) = entry?;
        if let Some(state) = JobState::from_name(&state) {
            counts.insert(state.name(), n);
        }
    }
    Ok(counts)
}

/// How many jobs wait for a worker.
pub(super) fn depth(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT n FROM job_count WHERE state = 'queued'")?.query_row([], |row| row.get(0))
}
