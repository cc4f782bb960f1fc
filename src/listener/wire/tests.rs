//! Two sides write to one socket at once, in pieces of any size, to a peer that reads as it likes.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;

/// A text frame; below 64 KiB.
fn frame(payload: &str) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![0x81];
    match u8::try_from(len) {
        Ok(short @ 0..=125) => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend(payload.as_bytes());
    frame
}

/// The payloads of frames that have to be whole.
fn payloads(mut bytes: &[u8]) -> Vec<String> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], 0x81, "a frame begins inside of another");
        let (head, len) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            short => (2, usize::from(short)),
        };
        payloads.push(String::from_utf8(bytes[head..head + len].to_vec()).unwrap());
        bytes = &bytes[head + len..];
    }
    payloads
}

async fn pair() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Arc::new(listener.accept().await.unwrap().0), peer)
}

async fn write_all(wire: &Wire, stream: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let n = std::future::poll_fn(|cx| wire.poll_write(stream, cx, &[IoSlice::new(bytes)])).await.unwrap();
        bytes = &bytes[n..];
    }
}

const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn before_the_answer_to_the_upgrade_nothing_is_taken() {
    let (stream, mut peer) = pair().await;
    let wire = Wire::new(Arc::downgrade(&stream));
    assert!(wire.write(&mut vec![frame("a").into()]).is_err());
    wire.upgrade();
    write_all(&wire, &stream, &HEAD[..20]).await;
    assert!(wire.write(&mut vec![frame("a").into()]).is_err());
    assert!(wire.write_one(frame("a").into()).is_err());
    write_all(&wire, &stream, &HEAD[20..]).await;
    assert!(wire.write(&mut vec![frame("a").into()]).unwrap());
    // A refused upgrade leaves an ordinary connection.
    let (plain, _peer) = pair().await;
    let refused = Wire::new(Arc::downgrade(&plain));
    refused.upgrade();
    write_all(&refused, &plain, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(refused.write(&mut vec![frame("a").into()]).is_err());
    drop(stream);
    assert!(wire.write(&mut vec![frame("b").into()]).is_err(), "the wire does not keep the connection");
    let mut all = Vec::new();
    peer.read_to_end(&mut all).await.unwrap();
    assert_eq!(payloads(&all[HEAD.len()..]), ["a"]);
}

/// What one side writes: its name and the numbers from 0, each in a frame of some size.
fn story(side: char, n: usize, random: &mut fastrand::Rng) -> Vec<String> {
    let payload = |n: usize| {
        format!("{side}{n} {}", "x".repeat(random.usize(0..3000) * usize::from(n.is_multiple_of(7))))
    };
    (0..n).map(payload).collect()
}

/// Writes as the fan-out does: one frame or several, as many as it likes.
async fn say_directly(wire: Arc<Wire>, mut said: VecDeque<String>, mut random: fastrand::Rng) {
    while !said.is_empty() {
        if random.bool() {
            // A frame alone: taken at once, or refused while others wait.
            match wire.write_one(frame(&said[0]).into()).unwrap() {
                Written::Refused => tokio::time::sleep(Duration::from_millis(1)).await,
                Written::Whole | Written::Waits => drop(said.pop_front()),
            }
            continue;
        }
        let n = random.usize(1..100).min(said.len());
        let mut some = said.drain(..n).map(|payload| Bytes::from(frame(&payload))).collect();
        let mut clear = wire.write(&mut some).unwrap();
        assert!(some.is_empty());
        while !clear {
            tokio::time::sleep(Duration::from_millis(1)).await;
            clear = wire.flush().unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_both_sides_stay_whole_and_in_their_order() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (stream, mut peer) = pair().await;
    rustix::net::sockopt::set_socket_send_buffer_size(&*stream, 4096).unwrap();
    let wire = Arc::new(Wire::new(Arc::downgrade(&stream)));
    wire.upgrade();
    write_all(&wire, &stream, HEAD).await;
    let (told, said) = (story('l', 3000, &mut random), story('d', 3000, &mut random));

    let library = {
        let (wire, told, mut random) = (wire.clone(), told.clone(), random.fork());
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            for (n, payload) in told.iter().enumerate() {
                bytes.extend(frame(payload));
                if n % 100 == 99 {
                    bytes.extend(frame(&format!("42[\"~\",{}]", n + 1)));
                }
                // Whole frames are offered; the small buffer of the socket cuts them anywhere.
                if random.bool() {
                    write_all(&wire, &stream, &bytes).await;
                    bytes.clear();
                }
            }
            write_all(&wire, &stream, &bytes).await;
            stream
        })
    };
    let direct = tokio::spawn(say_directly(wire.clone(), said.clone().into(), random.fork()));
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        all
    });
    direct.await.unwrap();
    drop(library.await.unwrap());
    let all = reader.await.unwrap();
    let came = payloads(&all[HEAD.len()..]);
    let of = |side: char| {
        came.iter().filter(move |payload| payload.starts_with(side)).cloned().collect::<Vec<_>>()
    };
    assert!(of('l') == told, "the library's frames");
    assert!(of('d') == said, "the direct frames");
    assert_eq!(came.len(), told.len() + said.len(), "no fence reaches the peer");
    assert_eq!(wire.passed(), 3000);
}
