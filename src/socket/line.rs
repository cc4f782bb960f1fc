//! Lines: the TCP connections behind each client, so that one can be ended whatever carries it.
//!
//! A client that begins with polling comes over several TCP connections, and its WebSocket over yet another one
//! than its handshake. Every request tells here which one it came on. A client that was ended while it polls
//! is ended for its next request too: the engine itself would forget it only after its heartbeat.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::{Request, Uri};
use socketioxide::TransportType;
use socketioxide::extract::SocketRef;

use super::Edge;
use crate::listener::KillSwitch;
use crate::presence;

/// The lines of all clients that have a session. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<HashMap<String, Line>>>);

#[derive(Debug, Default)]
struct Line {
    ended: bool,
    // The newest of each: an older one carries nothing any more.
    polling: Option<KillSwitch>,
    websocket: Option<KillSwitch>,
}

impl Lines {
    /// A client has a session now; its handshake came by `switch`.
    pub(super) fn open(&self, sid: &str, transport: TransportType, switch: Option<KillSwitch>) {
        let mut line = Line::default();
        *line.of(transport) = switch;
        self.lock().insert(sid.to_owned(), line);
    }

    /// The engine has forgotten it.
    pub(super) fn close(&self, sid: &str) {
        self.lock().remove(sid);
    }

    /// Ends what carries the client, and refuses its further requests.
    pub(super) fn end(&self, sid: &str) {
        if let Some(line) = self.lock().get_mut(sid) {
            line.ended = true;
            for switch in [&line.polling, &line.websocket].into_iter().flatten() {
                switch.press();
            }
        }
    }

    /// Notes which TCP connection `request` came on; one of a client that was ended becomes one that the engine
    /// does not know.
    pub(super) fn note<B>(&self, request: &mut Request<B>) {
        let Some((sid, transport)) = session_of(request.uri()) else { return };
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(sid) else { return };
        if line.ended {
            drop(lines);
            let transport = if transport == TransportType::Websocket { "websocket" } else { "polling" };
            let unknown = format!("/socket.io/?EIO=4&transport={transport}&sid=ended");
            if let Ok(unknown) = Uri::try_from(unknown) {
                *request.uri_mut() = unknown;
            }
        } else if let Some(switch) = request.extensions().get::<KillSwitch>()
            && (transport == TransportType::Websocket || request.method() == http::Method::GET)
        {
            *line.of(transport) = Some(switch.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn of(&mut self, transport: TransportType) -> &mut Option<KillSwitch> {
        match transport {
            TransportType::Polling => &mut self.polling,
            TransportType::Websocket => &mut self.websocket,
        }
    }
}

/// The session that a request belongs to, and what it is to carry.
fn session_of(uri: &Uri) -> Option<(&str, TransportType)> {
    let query = uri.query()?;
    let sid = query.split('&').find_map(|part| part.strip_prefix("sid="))?;
    let websocket = query.split('&').any(|part| part == "transport=websocket");
    Some((sid, if websocket { TransportType::Websocket } else { TransportType::Polling }))
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
            edge.end(&self.socket);
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

    fn request(query: &str) -> Request<()> {
        Request::builder().uri(format!("/socket.io/?EIO=4&{query}")).body(()).unwrap()
    }

    #[test]
    fn the_requests_of_an_ended_client_lead_nowhere_and_those_of_others_pass() {
        let lines = Lines::default();
        lines.open("a", TransportType::Polling, None);
        lines.open("b", TransportType::Polling, None);
        lines.end("a");
        for (query, ended) in [
            ("transport=polling&sid=a", true),
            ("transport=polling&sid=b", false),
            ("transport=polling", false),
        ] {
            let mut asked = request(query);
            lines.note(&mut asked);
            assert_eq!(asked.uri().query().unwrap().contains("sid=ended"), ended, "{query}");
        }
        lines.close("a");
        let mut asked = request("transport=polling&sid=a");
        lines.note(&mut asked);
        assert!(asked.uri().query().unwrap().ends_with("sid=a"));
    }
}
