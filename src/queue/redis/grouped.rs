//! Grouped calls: what comes while a call is under way goes together into the next one.
//!
//! A call of a script costs Redis more than what it does for one job. Whoever is alone waits for nobody; where many
//! come at once, they share calls. Each is answered for itself.

use std::fmt;

use ::redis::Value;
use tokio::sync::{mpsc, oneshot};

use super::answer::unexpected;
use super::entry::Entry;
use super::row::list;
use crate::fault::Cause;
use crate::queue::QueueError;
use crate::tasks::Tasks;

/// How many go into one call at most: Redis does nothing else meanwhile.
const TOGETHER: usize = 64;
/// How many bytes of arguments, unless one has more by itself.
const BYTES: usize = 256 * 1024;
/// How many may wait; beyond it they wait for a place.
const WAITING: usize = 256;

struct Request {
    entry: Entry,
    answer: oneshot::Sender<Result<Value, QueueError>>,
}

/// A way to one script, which answers with one value for each entry.
#[derive(Clone)]
pub(super) struct Grouped {
    requests: mpsc::Sender<Request>,
}

impl fmt::Debug for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").finish_non_exhaustive()
    }
}

impl Grouped {
    /// `call` runs the script for entries, and answers with a list: a value for each.
    pub(super) fn start<F>(
        name: &str,
        tasks: &Tasks,
        call: impl Fn(Vec<Entry>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Value, QueueError>> + Send,
    {
        let (requests, mut waiting) = mpsc::channel::<Request>(WAITING);
        tasks.spawn(name.to_owned(), async move {
            let mut group = Vec::new();
            while !group.is_empty() || waiting.recv_many(&mut group, TOGETHER).await > 0 {
                let part = group.drain(..part_of(&group));
                let (entries, askers): (Vec<_>, Vec<_>) =
                    part.map(|request| (request.entry, request.answer)).unzip();
                let answers = call(entries).await.and_then(|answers| Ok(list(answers)?));
                match answers {
                    Ok(answers) if answers.len() == askers.len() => {
                        for (asker, answer) in askers.into_iter().zip(answers) {
                            let _ = asker.send(Ok(answer));
                        }
                    }
                    Ok(_) => askers.into_iter().for_each(|asker| {
                        let _ = asker.send(Err(unexpected("another number of answers")));
                    }),
                    Err(error) => askers.into_iter().for_each(|asker| {
                        let _ = asker.send(Err(error.clone()));
                    }),
                }
            }
        });
        Self { requests }
    }

    /// What the script says to `entry`.
    pub(super) async fn call(&self, entry: Entry) -> Result<Value, QueueError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request { entry, answer }).await.is_err() {
            return Err(going());
        }
        answered.await.unwrap_or_else(|_| Err(going()))
    }
}

/// How many of the group go into the next call.
fn part_of(group: &[Request]) -> usize {
    let mut bytes = 0;
    let fits = |request: &&Request| {
        bytes += request.entry.0.iter().map(String::len).sum::<usize>();
        bytes <= BYTES
    };
    group.iter().take_while(fits).count().max(1)
}

/// Its task ends with the process.
fn going() -> QueueError {
    QueueError::Unavailable(Cause::new("this server is going away"))
}
