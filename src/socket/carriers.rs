//! Carriers: which TCP connection carries a session now, so that the session can be ended from outside.
//!
//! A client that begins with polling comes over several TCP connections, and its WebSocket over yet another one
//! than its handshake. The library offers no way to end such a session without a word of farewell, so it is
//! ended here: what carries it is cut, and its further requests are answered like those of a session that nobody
//! knows, upon which stock clients connect anew. The library itself forgets it only after its heartbeat.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Extensions, HeaderMap, Method, Request, Uri, header};
use socketioxide::TransportType;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;

use super::Edge;
use crate::listener::{KillSwitch, WeakKillSwitch};
use crate::presence;

/// No session has this id: it is what an ended one's is replaced with.
const NOBODY: &str = "AAAAAAAAAAAAAAAA";
/// Below so many nobody looks for connections that are gone.
const FEW: usize = 64;

/// What carries the sessions.
#[derive(Debug, Default)]
pub(super) struct Carriers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Sid, Carried>,
    // Apart from the sessions, because an upgrade may come before its session begins. Each request that upgrades
    // takes its connection with it, so there are no more live ones than connections.
    websockets: HashMap<Sid, WeakKillSwitch>,
    // Those that others came after while they were there. The library takes one of them, and not always the last.
    earlier: HashMap<Sid, Vec<WeakKillSwitch>>,
    look_at: usize,
    // Those that left their namespace, and when; the library has them still.
    parted: HashMap<Sid, Instant>,
}

#[derive(Debug, Default)]
struct Carried {
    ended: bool,
    // The newest poll, and which request of its connection that is: the connection may be that of a proxy, and
    // carry others once the poll is answered.
    poll: Option<(WeakKillSwitch, u64)>,
    polls: u64,
}

impl Carriers {
    /// A session begins, with a request of these parts.
    pub(super) fn open(&self, sid: Sid, headers: &HeaderMap, extensions: &Extensions) {
        let mut state = self.state();
        state.parted.remove(&sid);
        state.sessions.insert(sid, Carried::default());
        drop(state);
        if let Some(switch) = extensions.get().filter(|_| is_websocket(headers)) {
            self.upgraded(sid, switch);
        }
    }

    /// The library has forgotten the session `sid`.
    pub(super) fn forget(&self, sid: Sid) {
        let mut state = self.state();
        state.sessions.remove(&sid);
        drop(state.take_websockets(sid));
    }

    /// The session `sid` has left its namespace.
    pub(super) fn part(&self, sid: Sid) {
        self.state().parted.insert(sid, Instant::now());
    }

    /// Ends those that left `patience` ago and did not come back; how many. They are forgotten once the library has
    /// missed their answers, for which it needs less than `heartbeat`.
    pub(super) fn end_parted(&self, patience: Duration, heartbeat: Duration) -> usize {
        let now = Instant::now();
        let mut late: Vec<(Sid, bool)> = Vec::new();
        self.state().parted.retain(|sid, since| {
            let away = now.duration_since(*since);
            let is_forgotten = away >= patience + 2 * heartbeat;
            if away >= patience {
                late.push((*sid, is_forgotten));
            }
            !is_forgotten
        });
        let mut ended = 0;
        for (sid, is_forgotten) in late {
            ended += usize::from(self.end(sid));
            if is_forgotten {
                self.forget(sid);
            }
        }
        ended
    }

    /// Ends the session `sid`, if there is one that has not been ended.
    pub(super) fn end(&self, sid: Sid) -> bool {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&sid) else { return false };
        let is_new = !std::mem::replace(&mut session.ended, true);
        if let Some((switch, request)) = session.poll.take() {
            switch.press_during(request);
        }
        state.take_websockets(sid).for_each(|switch| switch.press());
        is_new
    }

    /// Notes what carries the session of `request`. One of an ended session becomes one of nobody's.
    pub(super) fn note<B>(&self, request: &mut Request<B>) {
        let switch = request.extensions().get::<KillSwitch>().cloned();
        if let Some(switch) = switch.as_ref().filter(|_| is_websocket(request.headers())) {
            switch.wire().upgrade();
        }
        let Some(sid) = sid(request.uri()) else { return };
        if is_websocket(request.headers()) && !self.is_ended(sid) {
            return switch.iter().for_each(|switch| self.upgraded(sid, switch));
        }
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&sid) else { return };
        if session.ended {
            let unknown = request.uri().to_string().replace(&format!("sid={sid}"), &format!("sid={NOBODY}"));
            if let Ok(unknown) = Uri::try_from(unknown) {
                *request.uri_mut() = unknown;
            }
        } else if request.method() == Method::GET {
            session.poll = switch.map(|switch| (switch.downgrade(), switch.request()));
            session.polls += 1;
        }
    }

    fn is_ended(&self, sid: Sid) -> bool {
        self.state().sessions.get(&sid).is_some_and(|session| session.ended)
    }

    /// How many polls there were of session `sid`.
    pub(super) fn polls(&self, sid: Sid) -> u64 {
        self.state().sessions.get(&sid).map_or(0, |session| session.polls)
    }

    /// What carries the WebSocket of session `sid`, if it has one.
    pub(super) fn websocket(&self, sid: Sid) -> Option<WeakKillSwitch> {
        let state = self.state();
        let earlier = state.earlier.get(&sid).into_iter().flatten().rev();
        state.websockets.get(&sid).into_iter().chain(earlier).find(|switch| switch.is_alive()).cloned()
    }

    fn upgraded(&self, sid: Sid, switch: &KillSwitch) {
        let mut state = self.state();
        if state.websockets.len() >= state.look_at.max(FEW) {
            state.websockets.retain(|_, switch| switch.is_alive());
            state.earlier.retain(|_, switches| switches.iter().any(WeakKillSwitch::is_alive));
            state.look_at = state.websockets.len() * 2;
        }
        let switch = switch.downgrade();
        let last = state.websockets.insert(sid, switch.clone());
        if let Some(last) = last.filter(|last| last.is_alive() && !last.is(&switch)) {
            let earlier = state.earlier.entry(sid).or_default();
            earlier.retain(|one| one.is_alive() && !one.is(&switch) && !one.is(&last));
            earlier.push(last);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What may carry the WebSocket of session `sid`, for the last time.
    fn take_websockets(&mut self, sid: Sid) -> impl Iterator<Item = WeakKillSwitch> + use<> {
        let earlier = self.earlier.remove(&sid).into_iter().flatten();
        self.websockets.remove(&sid).into_iter().chain(earlier)
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

/// The session that a request names.
pub(super) fn sid(uri: &Uri) -> Option<Sid> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("sid="))?.parse().ok()
}

/// The way to one client for whoever counts connections.
pub(super) struct SessionLine {
    pub(super) edge: Weak<Edge>,
    pub(super) socket: SocketRef,
}

impl fmt::Debug for SessionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLine").field("sid", &self.socket.id).finish_non_exhaustive()
    }
}

impl presence::Line for SessionLine {
    fn end(&self) {
        if let Some(edge) = self.edge.upgrade() {
            edge.end(self.socket.id);
        }
    }

    fn is_alive(&self) -> bool {
        self.socket.connected() && self.edge.upgrade().is_some_and(|edge| edge.has(self.socket.id))
    }

    fn transport(&self) -> Option<&'static str> {
        Some(match self.socket.transport_type() {
            TransportType::Polling => "polling",
            TransportType::Websocket => "websocket",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";
    const GONE: &str = "gone-gone-gone-g";

    fn sid(name: &str) -> Sid {
        name.parse().unwrap()
    }

    fn request(query: &str, switch: &KillSwitch) -> Request<()> {
        let uri = format!("/socket.io/?EIO=4&{query}");
        switch.begin_request();
        Request::builder().uri(uri).extension(switch.clone()).body(()).unwrap()
    }

    fn opened(sids: &[&str]) -> Carriers {
        let carriers = Carriers::default();
        sids.iter().for_each(|name| carriers.open(sid(name), &HeaderMap::new(), &Extensions::new()));
        carriers
    }

    #[test]
    fn the_requests_of_an_ended_session_lead_nowhere_and_those_of_others_pass() {
        let (carriers, switch) = (opened(&[A, B]), KillSwitch::default());
        carriers.end(sid(A));
        carriers.end(sid(GONE));
        let noted = |query: &str| {
            let mut request = request(query, &switch);
            carriers.note(&mut request);
            request.uri().to_string()
        };
        assert_eq!(
            noted(&format!("transport=polling&sid={A}")),
            format!("/socket.io/?EIO=4&transport=polling&sid={NOBODY}")
        );
        let others = [format!("&sid={B}"), format!("&sid={GONE}"), String::new()];
        for query in others.map(|sid| format!("transport=polling{sid}")) {
            assert!(noted(&query).ends_with(&query), "{query}");
        }
        carriers.forget(sid(A));
        assert!(noted(&format!("transport=polling&sid={A}")).ends_with(&format!("sid={A}")));
    }

    #[test]
    fn a_connection_is_cut_while_it_carries_the_session_and_not_once_it_carries_another() {
        let carriers = opened(&[A, B]);
        let (first, second) = (KillSwitch::default(), KillSwitch::default());
        carriers.note(&mut request(&format!("sid={A}"), &first));
        carriers.note(&mut request(&format!("sid={B}"), &first));
        carriers.end(sid(A));
        assert!(first.check().is_ok());
        carriers.note(&mut request(&format!("sid={B}"), &second));
        carriers.end(sid(B));
        assert!(first.check().is_ok());
        assert!(second.check().is_err());
    }

    #[test]
    fn a_session_that_left_its_namespace_ends_unless_it_comes_back() {
        let carriers = opened(&[A, B]);
        let heartbeat = Duration::from_secs(60);
        carriers.part(sid(A));
        carriers.part(sid(B));
        carriers.open(sid(B), &HeaderMap::new(), &Extensions::new());
        assert_eq!(carriers.end_parted(heartbeat, heartbeat), 0);
        assert_eq!(carriers.end_parted(Duration::ZERO, heartbeat), 1);
        assert_eq!(carriers.end_parted(Duration::ZERO, heartbeat), 0);
        assert!(carriers.is_ended(sid(A)) && !carriers.is_ended(sid(B)));
        carriers.end_parted(Duration::ZERO, Duration::ZERO);
        assert!(!carriers.is_ended(sid(A)) && carriers.state().parted.is_empty());
    }

    #[test]
    fn an_upgrade_may_come_before_its_session() {
        let (carriers, switch) = (Carriers::default(), KillSwitch::default());
        let mut upgrade = request(&format!("transport=websocket&sid={A}"), &switch);
        upgrade.headers_mut().insert(header::SEC_WEBSOCKET_KEY, header::HeaderValue::from_static("k"));
        carriers.note(&mut upgrade);
        carriers.open(sid(A), &HeaderMap::new(), &Extensions::new());
        carriers.end(sid(A));
        assert!(switch.check().is_err());
    }

    #[test]
    fn another_upgrade_hides_none_that_is_still_there() {
        let (carriers, first, second) = (opened(&[A]), KillSwitch::default(), KillSwitch::default());
        let third = KillSwitch::default();
        for switch in [&first, &second, &first, &second, &third, &third] {
            carriers.upgraded(sid(A), switch);
        }
        assert_eq!(carriers.state().earlier[&sid(A)].len(), 2);
        // The library did not take the later ones.
        drop((second, third));
        assert!(carriers.websocket(sid(A)).is_some_and(|switch| switch.is(&first.downgrade())));
        assert!(carriers.end(sid(A)));
        assert!(first.check().is_err());
        assert!(carriers.state().earlier.is_empty());
    }

    #[test]
    fn connections_that_are_gone_are_not_kept() {
        let carriers = Carriers::default();
        for n in 0..10 * FEW {
            carriers.upgraded(sid(&format!("{n:016}")), &KillSwitch::default());
        }
        assert!(carriers.state().websockets.len() <= FEW);
    }
}
