//! The task that owns a Socket.IO connection: writes what it is told, reads, answers pings, hands out events.
//!
//! One task and one WebSocket, without locks. While the application lags (its channel of events is full) the
//! task stops reading, so that the kernel's buffers fill and the server sees a slow receiver; writing goes on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::ClientError;
use super::packet::{Packet, PacketError};
use super::socket::Event;

pub(super) type Ws = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The event that answers `heartbeat:ping`.
const PONG: &str = "heartbeat:pong";
/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// From so many on, answers that nobody waits for any more are swept out.
const SWEEP: usize = 64;

/// What an answer is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// An acknowledgement with this number.
    Ack(u64),
    /// A `heartbeat:pong` with this `t`.
    Ping(u64),
}

/// What the task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Write this frame.
    Send(String),
    /// Write this frame and hand the answer back.
    Ask { question: Question, frame: String, answer: oneshot::Sender<Box<RawValue>> },
    /// End the connection.
    Close,
}

/// The connection, once the server has granted the namespace.
pub(super) struct Connection {
    pub(super) ws: Ws,
    pub(super) silence: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Result<Event, ClientError>>,
}

/// What one frame leads to.
enum Step {
    Nothing,
    Write(String),
    Event(Event),
}

impl Connection {
    /// Runs until the connection ends. The reason is the last thing in the channel of events, unless the end was
    /// asked for.
    pub(super) async fn run(self) {
        let events = self.events.clone();
        // Whoever waits for an answer learns of the end at once: `work` drops their senders when it returns.
        if let Err(why) = self.work().await {
            let _ = events.send(Err(why)).await;
        }
    }

    async fn work(self) -> Result<(), ClientError> {
        let Self { mut ws, silence, mut commands, events } = self;
        let mut waiting: HashMap<Question, oneshot::Sender<Box<RawValue>>> = HashMap::new();
        let mut parked: Option<Event> = None;
        let mut heard = Instant::now();
        let mut alarm = pin!(sleep_until(heard + silence));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Close) => return farewell(ws).await,
                    Some(command) => {
                        let frames = frames(command, &mut commands, &mut waiting);
                        let close = write(&mut ws, frames, silence).await?;
                        if close {
                            return farewell(ws).await;
                        }
                    }
                },
                () = events.closed() => return farewell(ws).await,
                permit = events.reserve(), if parked.is_some() => {
                    let Ok(permit) = permit else { return farewell(ws).await };
                    if let Some(event) = parked.take() {
                        permit.send(Ok(event));
                    }
                    // Nothing was read for as long as the application lagged: that silence is ours.
                    heard = Instant::now();
                }
                frame = ws.next(), if parked.is_none() => {
                    heard = Instant::now();
                    if matches!(frame, Some(Ok(tungstenite::Message::Close(_)))) {
                        // The answer, which is made by itself, says that everything before was read.
                        let _ = timeout(FAREWELL, ws.flush()).await;
                    }
                    match step(frame, &mut waiting)? {
                        Step::Nothing => {}
                        Step::Write(text) => { write(&mut ws, vec![Frame::Text(text)], silence).await?; }
                        Step::Event(event) => match events.try_send(Ok(event)) {
                            Ok(()) => {}
                            Err(TrySendError::Full(event)) => parked = event.ok(),
                            Err(TrySendError::Closed(_)) => return farewell(ws).await,
                        },
                    }
                }
                // Every frame is a sign of life; the timer is moved only when it fires, not for each of them.
                () = &mut alarm, if parked.is_none() => {
                    if heard + silence <= Instant::now() {
                        return Err(ClientError::Silent { after: silence });
                    }
                    alarm.as_mut().reset(heard + silence);
                }
            }
        }
    }
}

enum Frame {
    Text(String),
    Close,
}

/// The frames of `first` and of all commands that wait behind it: they leave with one flush.
fn frames(
    first: Command,
    commands: &mut mpsc::Receiver<Command>,
    waiting: &mut HashMap<Question, oneshot::Sender<Box<RawValue>>>,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut next = Some(first);
    while let Some(command) = next {
        match command {
            Command::Send(text) => frames.push(Frame::Text(text)),
            Command::Ask { question, frame, answer } => {
                if waiting.len() >= SWEEP {
                    waiting.retain(|_, answer| !answer.is_closed());
                }
                waiting.insert(question, answer);
                frames.push(Frame::Text(frame));
            }
            Command::Close => {
                frames.push(Frame::Close);
                break;
            }
        }
        next = commands.try_recv().ok();
    }
    frames
}

/// Writes `frames`; says whether the connection is to be closed after them.
async fn write(ws: &mut Ws, frames: Vec<Frame>, deadline: Duration) -> Result<bool, ClientError> {
    let all = async {
        let mut close = false;
        for frame in frames {
            match frame {
                Frame::Text(text) => ws.feed(tungstenite::Message::text(text)).await?,
                Frame::Close => close = true,
            }
        }
        ws.flush().await?;
        Ok(close)
    };
    match timeout(deadline, all).await {
        Ok(written) => written.map_err(|e: tungstenite::Error| ended(&e)),
        Err(_) => Err(ClientError::Silent { after: deadline }),
    }
}

/// Ends the namespace, then the transport. Nobody can do anything about a failure.
async fn farewell(mut ws: Ws) -> Result<(), ClientError> {
    let end = async {
        ws.send(tungstenite::Message::text(Packet::Disconnect.text())).await?;
        ws.close(None).await?;
        while ws.next().await.is_some_and(|frame| frame.is_ok()) {}
        Ok::<(), tungstenite::Error>(())
    };
    let _ = timeout(FAREWELL, end).await;
    Ok(())
}

fn step(
    frame: Option<Result<tungstenite::Message, tungstenite::Error>>,
    waiting: &mut HashMap<Question, oneshot::Sender<Box<RawValue>>>,
) -> Result<Step, ClientError> {
    let text = match text_of(frame)? {
        Some(text) => text,
        None => return Ok(Step::Nothing),
    };
    match Packet::parse(&text)? {
        Packet::Ping(text) => Ok(Step::Write(Packet::Pong(text).text())),
        Packet::Event { ack, name, args } => {
            let data = first(&args);
            if name == PONG
                && let Some(answer) = pong_of(data).and_then(|t| waiting.remove(&Question::Ping(t)))
            {
                let _ = answer.send(data.to_owned());
                return Ok(Step::Nothing);
            }
            Ok(Step::Event(Event::new(name.into_owned(), data.to_owned(), ack)))
        }
        Packet::Ack { id, args } => {
            if let Some(answer) = waiting.remove(&Question::Ack(id)) {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(first(&args).to_owned());
            }
            Ok(Step::Nothing)
        }
        Packet::Disconnect => Err(ClientError::Ended { reason: "the server disconnected".to_owned() }),
        Packet::Close => Err(ClientError::Ended { reason: "the server closed it".to_owned() }),
        Packet::ConnectError(error) => Err(refusal(error)),
        Packet::Open(_) | Packet::Pong(_) | Packet::Noop | Packet::Connect(_) => Ok(Step::Nothing),
    }
}

/// The text of a frame; `None` for the frames that WebSocket itself answers.
pub(super) fn text_of(
    frame: Option<Result<tungstenite::Message, tungstenite::Error>>,
) -> Result<Option<tungstenite::Utf8Bytes>, ClientError> {
    let gone = |reason: &str| Err(ClientError::Ended { reason: reason.to_owned() });
    match frame {
        None => gone("the server went away"),
        Some(Err(error)) => Err(ended(&error)),
        Some(Ok(message)) => match message {
            tungstenite::Message::Text(text) => Ok(Some(text)),
            tungstenite::Message::Binary(_) => Err(PacketError::Binary.into()),
            tungstenite::Message::Close(Some(close)) if !close.reason.is_empty() => gone(&close.reason),
            tungstenite::Message::Close(_) => gone("the server closed it"),
            _ => Ok(None),
        },
    }
}

/// What a `connect_error` packet says.
pub(super) fn refusal(error: &RawValue) -> ClientError {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    match serde_json::from_str::<Said<'_>>(error.get()) {
        Ok(said) => ClientError::refused(&said.message),
        Err(_) => ClientError::refused(error.get()),
    }
}

fn ended(error: &tungstenite::Error) -> ClientError {
    let reason = match error {
        tungstenite::Error::Io(io) => super::io_reason(io),
        other => other.to_string(),
    };
    ClientError::Ended { reason }
}

fn first<'a>(args: &[&'a RawValue]) -> &'a RawValue {
    args.first().copied().unwrap_or(RawValue::NULL)
}

fn pong_of(data: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Pong {
        t: Option<u64>,
    }
    serde_json::from_str::<Pong>(data.get()).ok()?.t
}
