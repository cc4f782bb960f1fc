//! Intake: takes a client's events from before its session exists.
//!
//! The library tells a client that it is connected before it calls the connect handler, and reads its packets
//! in another task: on a busy machine a fast client's first event comes in between, and without a handler it
//! would be lost without a word. So the handlers are registered by the admission, which runs before, and what
//! comes early waits here until the session takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::Value;
use socketioxide::extract::{Event, SocketRef, TryData};

use super::protocol::{Refusal, Request};
use super::reply::{Reply, WeakReply};
use super::session::Session;
use super::{Edge, admission};
use crate::config::settings::Limits;
use crate::limits::rate::{Meter, Rate, now_ns};
use crate::limits::{Reason, cap, met};

/// How many events may wait; a client that has not been greeted has no reason to send more.
const EARLY: usize = 64;

/// Where the events of one socket go.
pub(super) struct Intake {
    edge: Weak<Edge>,
    is_loopback: bool,
    state: Mutex<State>,
    tempo: Mutex<Tempo>,
}

/// How often events come, and how often they were refused for that.
#[derive(Default)]
struct Tempo {
    events: Meter,
    refused: Meter,
    /// It went on regardless, and is ended.
    is_over: bool,
}

enum State {
    /// There is no session yet. The replies are weak: the socket leads to this queue, and would keep itself if
    /// its session never came.
    Early(VecDeque<(&'static str, Option<Value>, WeakReply)>),
    /// Sessions are held by the edge alone: a socket that held its session would keep itself for ever.
    Open(Weak<Session>),
}

impl Default for State {
    fn default() -> Self {
        Self::Early(VecDeque::new())
    }
}

impl Intake {
    /// Registers the handler of `socket`: one for all events, because each idle connection pays for each of them.
    pub(super) fn register(socket: &SocketRef, edge: &Arc<Edge>) {
        let intake = Arc::new(Self {
            edge: Arc::downgrade(edge),
            is_loopback: admission::address(socket).is_loopback(),
            state: Mutex::default(),
            tempo: Mutex::default(),
        });
        socket.extensions.insert(intake.clone());
        // The closure's body runs while the packet is read, so events are queued in their order.
        socket.on_fallback(move |Event(event): Event, reply: Reply, TryData(data): TryData<Value>| {
            let known = Request::EVENTS.into_iter().find(|known| *known == event);
            match known {
                _ if !intake.is_in_time(&event, &reply) => {}
                Some(known) => intake.take(known, data.ok(), reply),
                None => refuse_unknown(&event, &reply),
            }
            std::future::ready(())
        });
    }

    /// The intake that was registered for `socket`.
    pub(super) fn of(socket: &SocketRef) -> Option<Arc<Self>> {
        socket.extensions.remove::<Arc<Self>>()
    }

    /// Gives the session what came early, and from now on everything.
    pub(super) fn open(&self, session: &Arc<Session>) {
        let mut state = self.state();
        let early = std::mem::replace(&mut *state, State::Open(Arc::downgrade(session)));
        // With the lock held: what comes now has to wait until it is its turn.
        if let State::Early(early) = early {
            for (event, data, reply) in early {
                if let Some(reply) = reply.upgrade() {
                    session.enqueue(event, data, reply);
                }
            }
        }
    }

    /// Whether an event does not come too soon after the ones before. Who goes on regardless is ended: each refusal
    /// costs as much as what was asked for.
    fn is_in_time(&self, event: &str, reply: &Reply) -> bool {
        let Some(edge) = self.edge.upgrade() else { return false };
        let configured = edge.parts.crowd.limits().events_per_second;
        let Some(most) = cap(configured, Limits::EVENTS_PER_SECOND, self.is_loopback) else { return true };
        let (rate, now) = (Rate::per_second(most), now_ns());
        let mut tempo = self.tempo.lock().unwrap_or_else(PoisonError::into_inner);
        if tempo.is_over {
            return false;
        }
        let Err(wait) = tempo.events.take(rate, 1, now) else { return true };
        tempo.is_over = tempo.refused.take(rate, 1, now).is_err();
        let is_flood = tempo.is_over;
        drop(tempo);
        if is_flood {
            met(Reason::Flood);
            edge.end(reply.sid());
        } else {
            met(Reason::EventRate);
            let detail = Reason::EventRate.detail();
            let text = format!("{detail}: {most}; the next one may come in {} ms", wait.as_millis() + 1);
            reply.refuse_now(event, &Refusal::new(Reason::EventRate.code(), text));
        }
        false
    }

    fn take(&self, event: &'static str, data: Option<Value>, reply: Reply) {
        match &mut *self.state() {
            State::Open(session) => {
                if let Some(session) = session.upgrade() {
                    session.enqueue(event, data, reply);
                }
            }
            State::Early(early) if early.len() < EARLY => early.push_back((event, data, reply.downgrade())),
            State::Early(_) => crate::metrics::rejected("limit"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At once: refusals that wait for room would be as many as a client that reads nothing cares to send.
fn refuse_unknown(event: &str, reply: &Reply) {
    crate::metrics::rejected("unknown_event");
    let known = Request::EVENTS.join("`, `");
    let refusal = Refusal::new("unknown_event", format!("clients send `{known}`, not `{event}`"));
    reply.refuse_now(event, &refusal);
}
