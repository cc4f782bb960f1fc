//! What can happen, as small values that read well when a failing list of them is printed.

use proptest::prelude::*;
use proptest::sample::select;

/// The channels: one per kind of promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Room {
    /// Long history, no conflation.
    Plain,
    /// History of ten messages.
    Short,
    /// Conflated by three keys, history of forty messages.
    Keyed,
    /// Of a test: conflated, with a snapshot.
    Test,
    /// No history.
    Lossy,
}

impl Room {
    pub(super) const ALL: [Self; 5] = [Self::Plain, Self::Short, Self::Keyed, Self::Test, Self::Lossy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain-1",
            Self::Short => "short-1",
            Self::Keyed => "keyed-1",
            Self::Test => "test-progress-t",
            Self::Lossy => "lossy-1",
        }
    }

    pub(super) fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|room| room.name() == name).expect("a channel of this test")
    }

    /// How many messages its history holds.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::Plain | Self::Test => 10_000,
            Self::Short => 10,
            Self::Keyed => 40,
            Self::Lossy => 0,
        }
    }

    pub(super) fn is_lossy(self) -> bool {
        self.size() == 0
    }
}

/// The devices: two of one user, and one of another that is called like one of them.
pub(super) const DEVICES: [(&str, &str); 3] = [("ann", "tablet"), ("ann", "phone"), ("bob", "tablet")];

/// Where a client wants to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Now,
    Start,
    /// Where it was itself: what it has read.
    Seen,
    /// Where the server has it stored.
    Stored,
    /// So far back of what it has read, at the beginning at most.
    Before(u8),
    /// A past that nobody knows.
    OtherEpoch(u8),
    /// So far beyond the top.
    Beyond(u8),
}

/// What a client acknowledges.
#[derive(Debug, Clone, Copy)]
pub(super) enum Acked {
    /// All that it has read.
    Seen,
    /// So many less.
    Older(u8),
    /// So many more.
    Beyond(u8),
    OtherEpoch,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In order; connections say goodbye first.
    Clean,
    /// Without a word.
    Killed,
    /// With its host, which may take the newest messages with it.
    HostDown { lost: u8 },
}

/// Messages to one channel, in one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publish {
    pub(super) room: Room,
    pub(super) n: u8,
    pub(super) large: bool,
    /// From 1; 0 leaves it to the channel.
    pub(super) priority: u8,
    /// Which keys, which events.
    pub(super) mix: u8,
    /// The first of them is one that was sent before.
    pub(super) repeat: Option<u8>,
    /// Whether what comes next waits for the answer.
    pub(super) wait: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Publish(Publish),
    Join {
        device: usize,
        room: Room,
        want: Want,
        batch: bool,
        snapshot: bool,
        wait: bool,
    },
    Leave {
        device: usize,
        room: Room,
    },
    /// How many frames the transport takes from now on.
    Pace {
        device: usize,
        frames: Option<u8>,
    },
    /// The client reads what its transport has taken.
    Read {
        device: usize,
    },
    Ack {
        device: usize,
        room: Room,
        what: Acked,
    },
    /// The server saves the places of all connections of the device.
    Save {
        device: usize,
    },
    /// The connection ends; the client has read the last frames, or has not.
    Break {
        device: usize,
        read: bool,
    },
    /// The client comes back while the server still believes in its old connection.
    Return {
        device: usize,
    },
    /// The server finds out about the oldest of those.
    Late {
        device: usize,
    },
    /// Retention's clock: all but the newest become too old.
    Age {
        room: Room,
        keep: u8,
    },
    /// Retention itself.
    Retain,
    /// A month without messages, and then some.
    Forget {
        room: Room,
        n: u8,
    },
    Restart(End),
    /// Everything comes to rest and is compared.
    Settle,
}

fn publish() -> impl Strategy<Value = Op> {
    let n = prop_oneof![7 => 1..=8_u8, 2 => 15..=70_u8];
    let repeat = prop_oneof![4 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let (large, wait) = (prop::bool::weighted(0.4), any::<bool>());
    // More to those of which little is kept.
    let mut rooms = Room::ALL.to_vec();
    rooms.extend([Room::Short, Room::Keyed]);
    (select(rooms), n, large, 0..=4_u8, any::<u8>(), repeat, wait).prop_map(
        |(room, n, large, priority, mix, repeat, wait)| {
            Op::Publish(Publish { room, n, large, priority, mix, repeat, wait })
        },
    )
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        2 => Just(Want::Now),
        3 => Just(Want::Start),
        5 => Just(Want::Seen),
        3 => Just(Want::Stored),
        2 => (1..15_u8).prop_map(Want::Before),
        1 => any::<u8>().prop_map(Want::OtherEpoch),
        1 => (0..3_u8).prop_map(Want::Beyond),
    ]
}

fn join() -> impl Strategy<Value = Op> {
    let flags = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
    (0..DEVICES.len(), select(Room::ALL.to_vec()), want(), flags).prop_map(
        |(device, room, want, (batch, snapshot, wait))| Op::Join {
            device,
            room,
            want,
            batch,
            snapshot,
            wait,
        },
    )
}

fn acked() -> impl Strategy<Value = Acked> {
    prop_oneof![
        4 => Just(Acked::Seen),
        2 => (1..20_u8).prop_map(Acked::Older),
        1 => (1..20_u8).prop_map(Acked::Beyond),
        1 => Just(Acked::OtherEpoch),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Clean),
        Just(End::Killed),
        prop_oneof![Just(0), 1..6_u8].prop_map(|lost| End::HostDown { lost })
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let device = || 0..DEVICES.len();
    let room = || select(Room::ALL.to_vec());
    let frames = prop_oneof![2 => Just(None), 3 => Just(Some(0)), 2 => (1..20_u8).prop_map(Some)];
    prop_oneof![
        20 => publish(),
        16 => join(),
        4 => (device(), room()).prop_map(|(device, room)| Op::Leave { device, room }),
        9 => (device(), frames).prop_map(|(device, frames)| Op::Pace { device, frames }),
        5 => device().prop_map(|device| Op::Read { device }),
        6 => (device(), room(), acked()).prop_map(|(device, room, what)| Op::Ack { device, room, what }),
        4 => device().prop_map(|device| Op::Save { device }),
        3 => (device(), any::<bool>()).prop_map(|(device, read)| Op::Break { device, read }),
        2 => device().prop_map(|device| Op::Return { device }),
        2 => device().prop_map(|device| Op::Late { device }),
        3 => (room(), 0..12_u8).prop_map(|(room, keep)| Op::Age { room, keep }),
        2 => Just(Op::Retain),
        2 => (room(), 1..30_u8).prop_map(|(room, n)| Op::Forget { room, n }),
        1 => end().prop_map(Op::Restart),
        3 => Just(Op::Settle),
    ]
}

/// A story of a server and its clients, which prints as one line per operation.
#[derive(Clone)]
pub(super) struct Story(pub(super) Vec<Op>);

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|op| write!(f, "\n    {op:?}"))
    }
}

/// What takes several steps in one room, which come together too seldom by themselves.
fn scene() -> impl Strategy<Value = Vec<Op>> {
    let room = select(vec![Room::Plain, Room::Short, Room::Keyed, Room::Test]);
    (0..4_u8, 0..DEVICES.len(), room, 4..20_u8, 30..60_u8, any::<u8>(), want()).prop_map(
        |(scene, device, room, few, many, mix, want)| {
            let publish =
                |n, wait| Op::Publish(Publish { room, n, large: true, priority: 0, mix, repeat: None, wait });
            let join = |want, wait| Op::Join { device, room, want, batch: false, snapshot: false, wait };
            let (stop, go) = (Op::Pace { device, frames: Some(0) }, Op::Pace { device, frames: None });
            match scene {
                // While it reads history, more happens than anybody remembers.
                0 => vec![publish(few, true), stop, join(Want::Start, true), publish(many, true), go],
                // While it reads history, the channel begins anew.
                2 => {
                    let forget = Op::Forget { room, n: few };
                    vec![publish(few, true), stop, join(Want::Start, true), forget, go]
                }
                // It falls behind.
                1 => vec![join(want, true), stop, publish(many, true), go, publish(few, false)],
                // It changes its mind.
                _ => vec![publish(few, true), stop, join(want, false), join(Want::Start, false), go],
            }
        },
    )
}

pub(super) fn story() -> impl Strategy<Value = Story> {
    let part = prop_oneof![30 => op().prop_map(|op| vec![op]), 1 => scene()];
    prop::collection::vec(part, 1..90).prop_map(|parts| Story(parts.concat()))
}
