//! Those who are turned away at the door: told why as cheaply as possible, and by nobody who serves others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::limits::{Reason, retry_after_s};

/// So many at once are given time to read why; others only hear that the connection was closed.
const TOLD_AT_ONCE: usize = 64;
/// How long they are given.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of what they had to say is listened to.
const LISTEN_BYTES: usize = 16 * 1024;
/// The same of whoever was in the midst of a message.
const LISTEN_LONG_BYTES: usize = 4 * 1024 * 1024;

/// Tells why.
#[derive(Debug)]
pub(super) struct TurnedAway(Arc<Semaphore>);

impl Default for TurnedAway {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOLD_AT_ONCE)))
    }
}

impl TurnedAway {
    /// Answers whatever was going to be asked, and closes.
    pub(super) fn answer(&self, stream: TcpStream, reason: Reason, retry: Duration) {
        let Ok(permit) = self.0.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _permit = permit;
            let _ = tokio::time::timeout(PATIENCE, tell(stream, &answer(reason, retry))).await;
        });
    }

    /// Listens to whoever was told its last words and has not read them yet, for a moment; nobody heeds what it says.
    pub(super) fn listen(&self, stream: Arc<TcpStream>) {
        let Ok(permit) = self.0.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _permit = permit;
            let _ = tokio::time::timeout(PATIENCE, listen(&stream, LISTEN_LONG_BYTES)).await;
        });
    }
}

async fn tell(mut stream: TcpStream, answer: &str) {
    use tokio::io::AsyncWriteExt as _;
    if stream.write_all(answer.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    listen(&stream, LISTEN_BYTES).await;
}

/// What is not read when a socket closes resets it, and takes the last words with it.
async fn listen(stream: &TcpStream, most: usize) {
    let (mut heard, mut some) = (0, [0; 1024]);
    while heard < most && stream.readable().await.is_ok() {
        match stream.try_read(&mut some) {
            Ok(n) if n > 0 => heard += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

fn answer(reason: Reason, retry: Duration) -> String {
    let (body, retry) = (reason.problem(), retry_after_s(retry));
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: {retry}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
