//! A network between a client and a server that can be made to fail: it stalls, or cuts what goes through it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What becomes of bytes.
#[derive(Debug, Clone)]
struct Weather {
    /// They stay where they are.
    stalled: bool,
    /// Connections of this generation end when it does.
    cut: CancellationToken,
}

/// A proxy in front of one server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _end: tokio_util::sync::DropGuard,
}

impl Proxy {
    /// In front of `port` of this machine.
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (weather, seen) = watch::channel(Weather { stalled: false, cut: CancellationToken::new() });
        let end = CancellationToken::new();
        let _end = end.clone().drop_guard();
        tokio::spawn(end.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, seen.clone()));
            }
        }));
        Self { address, weather, _end }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Nothing passes any more, and nobody is told.
    pub(crate) fn stall(&self) {
        self.weather.send_modify(|weather| weather.stalled = true);
    }

    /// Everything passes again.
    pub(crate) fn flow(&self) {
        self.weather.send_modify(|weather| weather.stalled = false);
    }

    /// Ends all connections; new ones are taken.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| {
            weather.cut.cancel();
            weather.cut = CancellationToken::new();
        });
    }
}

async fn carry(client: TcpStream, port: u16, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let cut = weather.borrow().cut.clone();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = cut.cancelled() => {}
        () = copy(from_client, to_server, weather.clone()) => {}
        () = copy(from_server, to_client, weather.clone()) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if weather.wait_for(|weather| !weather.stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
