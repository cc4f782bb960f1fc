//! A network between a client and a server that can be made to fail: it stalls, or cuts what goes through it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What becomes of bytes.
#[derive(Debug, Clone, Default)]
struct Weather {
    /// They stay where they are, on the way to the server or on the way back.
    stalled_to: bool,
    stalled_from: bool,
    /// The next answer of each connection is cut in its middle.
    torn: bool,
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
        let (weather, seen) = watch::channel(Weather::default());
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
        self.weather.send_modify(|weather| (weather.stalled_to, weather.stalled_from) = (true, true));
    }

    /// What the server says does not come back any more, while it hears everything.
    pub(crate) fn stall_answers(&self) {
        self.weather.send_modify(|weather| weather.stalled_from = true);
    }

    /// Each connection ends in the middle of the next answer that it carries.
    pub(crate) fn tear(&self) {
        self.weather.send_modify(|weather| weather.torn = true);
    }

    /// Everything passes again.
    pub(crate) fn flow(&self) {
        self.weather.send_modify(|weather| {
            (weather.stalled_to, weather.stalled_from, weather.torn) = (false, false, false);
        });
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
        () = copy(from_client, to_server, weather.clone(), false) => {}
        () = copy(from_server, to_client, weather.clone(), true) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let stalled = |weather: &Weather| if answers { weather.stalled_from } else { weather.stalled_to };
        let Ok(torn) =
            weather.wait_for(|weather| !stalled(weather)).await.map(|weather| answers && weather.torn)
        else {
            return;
        };
        let part = if torn { n / 2 } else { n };
        if to.write_all(&buffer[..part]).await.is_err() || torn {
            return;
        }
    }
}
