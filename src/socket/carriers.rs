//! Carriers: which TCP connection carries a session now, so that the session can be ended from outside.
//!
//! A socket keeps the request that it began with. A client that began with polling has left that request's
//! connection since: it upgraded to a WebSocket on another one, or polls on any. The library offers no way to
//! end such a session, so it is ended here: its WebSocket is cut, and its further requests are answered like
//! those of a session that nobody knows, upon which stock clients connect anew.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Uri;

use crate::listener::{KillSwitch, WeakKillSwitch};

/// No session has this id: it is what an ended one's is replaced with.
const NOBODY: &str = "AAAAAAAAAAAAAAAA";
/// Below so many nobody looks for connections that are gone.
const FEW: usize = 64;

/// The sessions that began with polling.
#[derive(Debug, Default)]
pub(super) struct Carriers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    // Each request that upgrades takes its connection with it, so there are no more live ones than connections.
    upgraded: HashMap<String, WeakKillSwitch>,
    look_at: usize,
    ended: HashSet<String>,
}

impl Carriers {
    /// Notes that the session of `uri` goes on over the WebSocket that `switch` ends.
    pub(super) fn upgraded(&self, uri: &Uri, switch: &KillSwitch) {
        let Some(sid) = sid(uri) else { return };
        let mut state = self.state();
        if state.upgraded.len() >= state.look_at.max(FEW) {
            state.upgraded.retain(|_, switch| switch.is_alive());
            state.look_at = state.upgraded.len() * 2;
        }
        state.upgraded.insert(sid.to_owned(), switch.downgrade());
    }

    /// Ends the session `sid`, until it is [forgotten](Self::forget).
    pub(super) fn end(&self, sid: &str) {
        let mut state = self.state();
        state.ended.insert(sid.to_owned());
        if let Some(switch) = state.upgraded.remove(sid) {
            switch.press();
        }
    }

    /// The session `sid` is gone.
    pub(super) fn forget(&self, sid: &str) {
        let mut state = self.state();
        state.ended.remove(sid);
        state.upgraded.remove(sid);
    }

    /// Another URI for a request of a session that was ended.
    pub(super) fn refused(&self, uri: &Uri) -> Option<Uri> {
        let state = self.state();
        let ended = sid(uri).filter(|sid| state.ended.contains(*sid))?;
        uri.to_string().replace(&format!("sid={ended}"), &format!("sid={NOBODY}")).parse().ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session that a request names.
fn sid(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("sid="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_unknown_until_it_is_forgotten() {
        let carriers = Carriers::default();
        let uri = Uri::from_static("/socket.io/?EIO=4&transport=polling&sid=abc");
        assert_eq!(carriers.refused(&uri), None);
        carriers.end("abc");
        let refused = carriers.refused(&uri).expect("it has ended");
        assert_eq!(refused, "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA");
        assert_eq!(carriers.refused(&Uri::from_static("/socket.io/?EIO=4&transport=polling")), None);
        carriers.forget("abc");
        assert_eq!(carriers.refused(&uri), None);
    }

    #[test]
    fn connections_that_are_gone_are_not_kept() {
        let carriers = Carriers::default();
        for n in 0..10 * FEW {
            let uri: Uri = format!("/socket.io/?sid={n}").parse().expect("a URI");
            carriers.upgraded(&uri, &KillSwitch::default());
        }
        assert!(carriers.state().upgraded.len() <= FEW);
    }
}
