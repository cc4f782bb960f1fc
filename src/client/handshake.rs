//! The way to a connection: TCP, WebSocket, Engine.IO's open packet, Socket.IO's namespace.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio_tungstenite::tungstenite::{self, protocol::WebSocketConfig};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use super::authority;
use super::connection::{Ws, refusal, text_of};
use super::http::problem;
use super::packet::{Packet, PacketError};
use super::socket::ConnectOptions;
use super::{ClientError, ServerUrl, io_reason};
use crate::tls::distrust;

/// WebSocket's read buffer; the library's own 128 KiB would be most of what a load tool's client costs.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// Connects and enters the namespace; returns how long the server may be silent from then on.
pub(super) async fn handshake(
    url: &ServerUrl,
    options: &ConnectOptions,
) -> Result<(Ws, Duration), ClientError> {
    let auth = to_raw_value(&auth(options)).map_err(|e| ClientError::json("the handshake's auth", &e))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(options.max_frame_bytes))
        .max_frame_size(Some(options.max_frame_bytes));
    let connector = if url.is_tls() {
        Connector::Rustls(authority::config(url, options.authority.as_ref())?)
    } else {
        Connector::Plain
    };
    // The third argument sends small frames at once (`TCP_NODELAY`).
    let (mut ws, _) = connect_async_tls_with_config(url.socket(), Some(config), true, Some(connector))
        .await
        .map_err(|error| connect_error(url, error))?;
    let mut silence = None;
    loop {
        let Some(text) = text_of(ws.next().await)? else { continue };
        let answer = match Packet::parse(&text).map_err(|error| not_tidings(url, &error))? {
            Packet::Open(open) => {
                silence = Some(open.silence());
                Packet::Connect(Some(&auth)).text()
            }
            Packet::Ping(text) => Packet::Pong(text).text(),
            Packet::ConnectError(error) => return Err(refusal(error)),
            Packet::Close | Packet::Disconnect => {
                return Err(ClientError::Ended { reason: "the server closed it".to_owned() });
            }
            Packet::Connect(_) => match silence {
                Some(silence) => return Ok((ws, silence)),
                None => return Err(not_tidings(url, &PacketError::UnknownType('4'))),
            },
            _ => continue,
        };
        ws.send(tungstenite::Message::text(answer)).await.map_err(|error| connect_error(url, error))?;
    }
}

fn auth(options: &ConnectOptions) -> Value {
    let mut auth = options.auth.clone();
    if let (Some(token), Value::Object(fields)) = (&options.token, &mut auth) {
        fields.insert("token".to_owned(), Value::String(token.clone()));
    }
    auth
}

fn not_tidings(url: &ServerUrl, error: &PacketError) -> ClientError {
    ClientError::NotTidings { url: url.to_string(), reason: format!("it sent {error}") }
}

fn connect_error(url: &ServerUrl, error: tungstenite::Error) -> ClientError {
    if let Some(reason) = distrust(&error) {
        return url.distrusted(reason);
    }
    match error {
        tungstenite::Error::Io(io) => url.unreachable(io_reason(&io)),
        // The server answered the upgrade with an ordinary response: a refusal, or not a Socket.IO server at all.
        tungstenite::Error::Http(response) => {
            let status = response.status();
            let body = response.body().as_deref().unwrap_or_default();
            problem(status, body).unwrap_or_else(|| ClientError::NotTidings {
                url: url.to_string(),
                reason: format!("the WebSocket handshake ended with HTTP {status}"),
            })
        }
        other => ClientError::NotTidings { url: url.to_string(), reason: other.to_string() },
    }
}
