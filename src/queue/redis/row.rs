//! Jobs as Redis keeps them: hashes of texts, with what is still to be told of them in fields of their own.

use std::borrow::Cow;
use std::collections::HashMap;

use ::redis::Value;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::model::test::TestError;
use crate::model::trace::TraceContext;
use crate::model::{Job, JobId, JobState, Priority, TestId, UserId, WorkerId};
use crate::queue::CancelWish;

/// What begins the name of a field that holds news.
const NEWS: &str = "o:";

/// Something that Redis answered is not what a script of ours writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what Redis holds of {what} cannot be read: {detail}; was it written by another version of tidings?")]
pub struct Unreadable {
    /// Of a job, or of an answer.
    pub what: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Unreadable {
    pub(super) fn answer(detail: impl Into<String>) -> Self {
        Self { what: "the queue".to_owned(), detail: detail.into() }
    }
}

/// A job with what is still to be told of it, oldest first.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) job: Job,
    pub(super) seq: i64,
    pub(super) fence: i64,
    /// Of whoever holds it outside of all workers.
    pub(super) secret: Option<String>,
    pub(super) wish: CancelWish,
    pub(super) untold: Vec<News>,
}

/// A change of a job that has to be told: the job as it was right after it.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) seq: i64,
    pub(super) kind: String,
    pub(super) now_ms: i64,
    pub(super) job: Job,
    /// JSON, or the reason of a cancellation; empty where there is none.
    pub(super) payload: String,
    pub(super) extra: String,
}

impl News {
    /// How many jobs wait, as the note of a beginning says it.
    pub(super) fn depth(&self) -> Option<u64> {
        self.extra.split(' ').next()?.parse().ok()
    }

    /// The job that had the test before this one was added, if something of that one may be untold: it is told first.
    pub(super) fn before(&self) -> Option<JobId> {
        if self.kind != "added" {
            return None;
        }
        JobId::parse(self.extra.split_once(' ')?.1).ok()
    }

    /// What it is known by: its job, and its number there.
    pub(super) fn id(&self) -> (JobId, i64) {
        (self.job.job_id.clone(), self.seq)
    }
}

/// The text of an answer's element.
pub(super) fn text(value: &Value) -> Result<String, Unreadable> {
    match value {
        Value::BulkString(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Unreadable::answer("a text that is not UTF-8")),
        },
        Value::SimpleString(text) => Ok(text.clone()),
        Value::Okay => Ok("OK".to_owned()),
        Value::Int(n) => Ok(n.to_string()),
        other => Err(Unreadable::answer(format!("expected a text, found {other:?}"))),
    }
}

/// The same, of an element that nobody else needs.
fn into_text(value: Value) -> Result<String, Unreadable> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|_| Unreadable::answer("a text that is not UTF-8"))
        }
        other => text(&other),
    }
}

/// The number in an answer's element.
pub(super) fn number(value: &Value) -> Result<i64, Unreadable> {
    let text = text(value)?;
    text.parse().map_err(|_| Unreadable::answer(format!("expected a number, found {text:?}")))
}

/// The elements of an answer.
pub(super) fn list(value: Value) -> Result<Vec<Value>, Unreadable> {
    match value {
        Value::Array(elements) => Ok(elements),
        Value::Nil => Ok(Vec::new()),
        other => Err(Unreadable::answer(format!("expected a list, found {other:?}"))),
    }
}

/// Reads jobs; one that cannot be read is logged and left out, so that it does not stand in the way of others.
pub(super) fn jobs(value: Value) -> Result<Vec<Stored>, Unreadable> {
    let read = |value| Stored::read(value).inspect_err(|error| tracing::error!(%error, "a job was left out"));
    Ok(list(value)?.into_iter().filter_map(|value| read(value).ok()).collect())
}

/// A text in a list; most have nothing escaped, and are not copied.
#[derive(Deserialize)]
struct Piece<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of one job.
struct Fields<'a>(HashMap<Cow<'a, str>, Cow<'a, str>>);

impl<'a> Fields<'a> {
    /// Reads a list of names, each with its value behind it.
    fn read(text: &'a str) -> Result<Self, Unreadable> {
        let pieces: Vec<Piece<'a>> = serde_json::from_str(text)
            .map_err(|error| Unreadable::answer(format!("a job is no list of texts: {error}")))?;
        let mut fields = HashMap::with_capacity(pieces.len() / 2);
        let mut pieces = pieces.into_iter();
        while let (Some(Piece(name)), Some(Piece(value))) = (pieces.next(), pieces.next()) {
            fields.insert(name, value);
        }
        Ok(Self(fields))
    }

    /// The same, as elements of their own.
    fn listed(elements: Vec<Value>) -> Result<Self, Unreadable> {
        let mut fields = HashMap::with_capacity(elements.len() / 2);
        let mut elements = elements.into_iter();
        while let (Some(name), Some(value)) = (elements.next(), elements.next()) {
            fields.insert(into_text(name)?.into(), into_text(value)?.into());
        }
        Ok(Self(fields))
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| value.clone().into_owned())
    }

    fn unreadable(&self, detail: impl Into<String>) -> Unreadable {
        let id = self.0.get("id").map_or("without an id", |id| &**id);
        Unreadable { what: format!("job {id}"), detail: detail.into() }
    }

    fn get(&self, name: &str) -> Result<&str, Unreadable> {
        self.0.get(name).map(|value| &**value).ok_or_else(|| self.unreadable(format!("`{name}` is missing")))
    }

    fn parse<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Unreadable> {
        parse(self.get(name)?).map_err(|e| self.unreadable(format!("`{name}`: {e}")))
    }

    fn optional<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Unreadable> {
        if self.0.contains_key(name) { self.parse(name, parse).map(Some) } else { Ok(None) }
    }
}

fn state(name: &str) -> Result<JobState, String> {
    JobState::from_name(name).ok_or_else(|| format!("no state is called {name:?}"))
}

fn priority(text: &str) -> Result<Priority, String> {
    let number = text.parse().map_err(|_| "not a number".to_owned())?;
    Priority::from_number(number).map_err(|e| e.to_string())
}

impl Stored {
    pub(super) fn read(value: Value) -> Result<Self, Unreadable> {
        let text = match value {
            // Of one of which much is untold.
            Value::Array(elements) => return Self::of(&Fields::listed(elements)?),
            text => into_text(text)?,
        };
        Self::of(&Fields::read(&text)?)
    }

    fn of(fields: &Fields<'_>) -> Result<Self, Unreadable> {
        if let Some(why) = fields.0.get("unreadable") {
            return Err(fields.unreadable(&**why));
        }
        let job = job(fields)?;
        let mut untold = Vec::new();
        for (name, entry) in &fields.0 {
            let Some(seq) = name.strip_prefix(NEWS) else { continue };
            let news = News::read(seq, entry, &job).map_err(|e| fields.unreadable(format!("`{name}`: {e}")));
            match news {
                Ok(news) => untold.push(news),
                Err(error) => tracing::error!(%error, "a change of a job cannot be told"),
            }
        }
        untold.sort_by_key(|news| news.seq);
        let (seq, fence) = (fields.parse("seq", str::parse)?, fields.parse("fence", str::parse)?);
        let secret = fields.owned("secret");
        let wish = CancelWish { reason: fields.owned("reason"), by: fields.optional("by", UserId::parse)? };
        Ok(Self { seq, fence, secret, wish, job, untold })
    }
}

fn job(fields: &Fields<'_>) -> Result<Job, Unreadable> {
    Ok(Job {
        job_id: fields.parse("id", JobId::parse)?,
        test_id: fields.parse("test", TestId::parse)?,
        test_type: fields.get("type")?.to_owned(),
        name: fields.owned("name"),
        lease_ms: fields.optional("hold", str::parse)?,
        config: fields.parse("config", |text| serde_json::from_str(text))?,
        state: fields.parse("state", state)?,
        priority: fields.parse("prio", priority)?,
        attempt: fields.parse("attempt", str::parse)?,
        max_attempts: fields.parse("max", str::parse)?,
        timeout_ms: fields.optional("timeout", str::parse)?,
        dedupe_key: fields.owned("key"),
        team_id: fields.owned("team"),
        user_id: fields.optional("user", UserId::parse)?,
        traceparent: fields.0.get("trace").and_then(|text| TraceContext::parse(text)),
        created_at: fields.parse("created", str::parse)?,
        run_at: fields.optional("run", str::parse)?,
        started_at: fields.optional("started", str::parse)?,
        ended_at: fields.optional("ended", str::parse)?,
        worker_id: fields.optional("worker", WorkerId::parse)?,
        cancel_requested: fields.get("cancel")? == "1",
        error: fields.optional("error", |text| serde_json::from_str(text))?,
        waiting: None,
    })
}

impl News {
    /// Reads a list of texts: kind, time, state, attempt, due time, start, worker, error, payload, extra.
    fn read(seq: &str, entry: &str, job: &Job) -> Result<Self, String> {
        let [kind, now, state_name, attempt, run, started, worker, error, payload, extra]: [String; 10] =
            serde_json::from_str(entry).map_err(|e| e.to_string())?;
        let time = |text: &str| text.parse::<i64>().map_err(|e| format!("{text:?}: {e}"));
        let given = |text: &str| if text.is_empty() { Ok(None) } else { time(text).map(Some) };
        let error: Option<TestError> = if error.is_empty() {
            None
        } else {
            serde_json::from_str(&error).map(Some).map_err(|e| e.to_string())?
        };
        Ok(Self {
            seq: time(seq)?,
            now_ms: time(&now)?,
            job: Job {
                state: state(&state_name)?,
                attempt: attempt.parse().map_err(|e| format!("{attempt:?}: {e}"))?,
                run_at: given(&run)?,
                started_at: given(&started)?,
                worker_id: WorkerId::parse(&worker).ok(),
                error,
                ..job.clone()
            },
            kind,
            payload,
            extra,
        })
    }

    /// The payload as an object; empty if it is none.
    pub(super) fn object(&self) -> Map<String, Json> {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }
}
