//! Admission: whether a client may become a session, and what it counts as while it is one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;
use socketioxide::extract::SocketRef;

use super::Edge;
use super::intake::Intake;
use super::protocol::{Handshake, Refusal};
use super::slim::Presented;
use crate::config::secret::Secret;
use crate::limits::address::Address;
use crate::limits::crowd::{Begun, Member};
use crate::limits::{Notice, Reason, met};
use crate::model::UserId;
use crate::quota::Seat;

static NOTICE: Notice = Notice::new();

/// What a session counts as; until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) address: Address,
    /// Of a user, where there is one.
    pub(super) seat: Option<Seat>,
    _member: Member,
}

impl Admitted {
    /// What `socket` was admitted as.
    pub(super) fn of(socket: &SocketRef) -> Option<Arc<Self>> {
        socket.extensions.remove()
    }
}

/// From where the session of `socket` comes.
pub(super) fn address(socket: &SocketRef) -> Address {
    let begun = socket.req_parts().extensions.get::<Arc<Begun>>();
    begun.map_or(Address::V4(Ipv4Addr::LOCALHOST), |begun| begun.address())
}

impl Edge {
    /// Decides about a handshake; a refusal reaches the client as `connect_error`.
    pub(super) async fn admit(
        self: &Arc<Self>,
        socket: &SocketRef,
        auth: Option<Value>,
    ) -> Result<(), Refusal> {
        let Handshake { token, user_id, .. } = Handshake::parse(auth)?;
        let token = token.or_else(|| Presented::of(socket));
        let identity = self.parts.auth.identify(token.as_ref().map(Secret::reveal), user_id).await;
        let identity = identity.inspect_err(|_| crate::metrics::rejected("unauthorized"))?;
        self.seat(socket, identity.user().cloned()).await?;
        socket.extensions.insert(identity);
        // The client is not told that it is connected before this returns.
        Intake::register(socket, self);
        Ok(())
    }

    /// Admits a client as `user`, if neither it nor anybody else has too much.
    async fn seat(&self, socket: &SocketRef, user: Option<UserId>) -> Result<(), Refusal> {
        let (address, limits) = (address(socket), self.parts.crowd.limits());
        let member = self.parts.crowd.join(address).map_err(refused)?;
        let seat = match user {
            Some(user) => {
                let most = Some(limits.connections_per_user).filter(|most| *most > 0);
                let seat = self.parts.quota.connect(&user, most).await;
                Some(seat.ok_or_else(|| refused(Reason::ConnectionsOfUser))?)
            }
            None => None,
        };
        if let Some(begun) = socket.req_parts().extensions.get::<Arc<Begun>>() {
            begun.finish();
        }
        socket.extensions.insert(Arc::new(Admitted { address, seat, _member: member }));
        Ok(())
    }
}

fn refused(reason: Reason) -> Refusal {
    met(reason);
    if let Some(times) = NOTICE.due() {
        tracing::warn!(reason = reason.label(), times, "a client was refused: a limit is reached");
    }
    Refusal::new(reason.code(), reason.detail())
}
