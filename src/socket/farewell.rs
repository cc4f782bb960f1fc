//! The farewell: how every client leaves a server that goes away, with all that it was to get.
//!
//! A client gets what waits for it, then `system:maintenance:start`, then the end of its transport: stock clients take
//! that for a lost connection and make a new one, on another server if there is one. (The end of the *namespace*, which
//! is what the library offers, they take for a wish that they stay away.)
//!
//! Over WebSocket the end is a close frame: who answers it has read everything before. A client that polls is ended
//! at the poll after the one that took the last words.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socketioxide::socket::Sid;
use tokio::time::{Instant, sleep, timeout_at};

use super::session::Session;
use super::{Edge, packet};
use crate::fanout::SendError;
use crate::model::farewell::{GOING_AWAY, going_away};

/// The pause between two looks at those who are still here.
const PACE: Duration = Duration::from_millis(20);
/// A poll that is answered at once has been, after so long.
const POLL_ANSWERED: Duration = Duration::from_millis(100);

/// All who are connected.
#[derive(Debug, Clone)]
pub struct Clients(pub(super) Arc<Edge>);

/// How far the farewell of one client is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// What waits for it leaves.
    Settling,
    /// The last words were said, after so many polls; since when there has been one more.
    Told(u64, Option<Instant>),
    /// Its WebSocket was ended; its answer is waited for.
    HungUp,
    /// Nothing more can be done for it.
    Over,
}

impl Clients {
    /// Sends everybody away, who is here or comes meanwhile. Whoever has not gone within `patience` is cut off; what
    /// their sessions leave behind (the places of devices, who is offline) is written when this returns.
    pub async fn send_away(&self, patience: Duration) {
        let Self(edge) = self;
        let (began, deadline) = (Instant::now(), Instant::now() + patience);
        let mut steps: HashMap<Sid, Step> = HashMap::new();
        loop {
            let sessions: Vec<_> = edge.sessions().iter().map(|(sid, s)| (*sid, s.clone())).collect();
            let now = Instant::now();
            if sessions.is_empty() {
                break;
            }
            if now >= deadline {
                let clients = sessions.len();
                tracing::warn!(
                    clients,
                    "some clients did not go in time and were cut off; they resume on return"
                );
                sessions.iter().for_each(|(sid, _)| edge.end(*sid));
                break;
            }
            for (sid, session) in sessions {
                let step = steps.entry(sid).or_insert(Step::Settling);
                // Whoever reads too slowly for all of it gets the rest on return.
                *step = step.next(&session, now.duration_since(began) >= patience / 2);
                if matches!(step, Step::Over) {
                    edge.end(sid);
                }
            }
            sleep(PACE).await;
        }
        edge.closed.store(true, Ordering::Release);
        // Who came between the last look and this.
        let late: Vec<_> = edge.sessions().keys().copied().collect();
        late.into_iter().for_each(|sid| edge.end(sid));
        edge.work.close();
        if timeout_at(deadline + patience, edge.work.wait()).await.is_err() {
            tracing::warn!("some sessions were not wound up in time; their devices may get messages twice");
        }
    }
}

impl Step {
    /// Goes on with it; `hurry` says that nothing is waited for any more before the last words.
    fn next(self, session: &Session, hurry: bool) -> Self {
        match self {
            Self::Settling if session.settle() || hurry => Self::tell(session),
            Self::Told(polls, since) => match (session.voice().polls(), since) {
                (Some(now), None) if now > polls => Self::Told(polls, Some(Instant::now())),
                (Some(_), Some(since)) if since.elapsed() >= POLL_ANSWERED => Self::Over,
                (Some(_), _) => self,
                (None, _) => match session.voice().hang_up() {
                    Ok(true) => Self::HungUp,
                    Ok(false) => self,
                    Err(_) => Self::Over,
                },
            },
            Self::HungUp => match session.voice().flush() {
                Ok(()) | Err(SendError::Full) => self,
                Err(SendError::Closed) => Self::Over,
            },
            Self::Settling | Self::Over => self,
        }
    }

    fn tell(session: &Session) -> Self {
        // Before the last words: what nobody reads any more must not count as written.
        session.silence();
        let (voice, notice) = (session.voice(), going_away());
        let polls = voice.polls().unwrap_or(0);
        let told =
            voice.say(|| packet::event(GOING_AWAY, notice.get()), |socket| socket.emit(GOING_AWAY, &*notice));
        match told {
            Ok(()) => Self::Told(polls, None),
            Err(SendError::Full) => Self::Settling,
            Err(SendError::Closed) => Self::Over,
        }
    }
}
