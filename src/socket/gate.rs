//! The gate: holds what a client sends before its session is there.
//!
//! socketioxide tells the client that it is connected before it calls the connect handler, from a task that may
//! be interrupted in between. Handlers are therefore registered earlier, at the admission, and what they are
//! given meanwhile waits here, in its order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many events may come too early; a client that sends more has not waited for its connection.
const EARLY_EVENTS: usize = 128;

/// The way of events of type `E` to a session of type `S`, which it does not keep alive.
#[derive(Debug)]
pub(super) struct Gate<S, E>(Mutex<State<S, E>>);

#[derive(Debug)]
enum State<S, E> {
    Waiting(Vec<E>),
    Open(Weak<S>),
    Closed,
}

impl<S, E> Gate<S, E> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Waiting(Vec::new())))
    }

    /// Gives `event` back with the session that takes it; `None` if it is held until there is one, or too late.
    pub(super) fn pass(&self, event: E) -> Option<(Arc<S>, E)> {
        match &mut *self.state() {
            State::Open(session) => Some((session.upgrade()?, event)),
            State::Waiting(early) if early.len() < EARLY_EVENTS => {
                early.push(event);
                None
            }
            State::Waiting(_) => {
                crate::metrics::rejected("limit");
                None
            }
            State::Closed => None,
        }
    }

    /// Delivers what was held, in its order, and lets everything else pass from then on. False if the client has
    /// gone already.
    pub(super) fn open(&self, session: &Arc<S>, mut deliver: impl FnMut(E)) -> bool {
        loop {
            let mut state = self.state();
            let State::Waiting(early) = &mut *state else { return false };
            let held = std::mem::take(early);
            // Only when nothing is held any more: what comes in the meantime has to wait its turn.
            if held.is_empty() {
                *state = State::Open(Arc::downgrade(session));
                return true;
            }
            drop(state);
            held.into_iter().for_each(&mut deliver);
        }
    }

    /// Lets nothing pass any more.
    pub(super) fn close(&self) {
        *self.state() = State::Closed;
    }

    fn state(&self) -> MutexGuard<'_, State<S, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_session_is_delivered_first_and_in_order() {
        let gate = Gate::new();
        let session = Arc::new("session");
        assert!(gate.pass(1).is_none() && gate.pass(2).is_none());
        let mut delivered = Vec::new();
        let opened = gate.open(&session, |event| {
            // One more arrives while the held ones are delivered.
            if event == 2 {
                assert!(gate.pass(3).is_none());
            }
            delivered.push(event);
        });
        assert!(opened);
        assert_eq!(delivered, [1, 2, 3]);
        assert_eq!(gate.pass(4), Some((session, 4)));
    }

    #[test]
    fn a_client_that_has_gone_gets_no_session() {
        let gate = Gate::new();
        assert!(gate.pass(1).is_none());
        gate.close();
        assert!(!gate.open(&Arc::new("session"), |event| panic!("{event} came back")));
        assert_eq!(gate.pass(2), None);
    }
}
