//! What comes in over a WebSocket, counted in frames (RFC 6455, 5.2): whoever sends far more of them than anybody has a
//! reason to, or longer ones, is ended before they are looked at.

use crate::limits::Reason;
use crate::limits::rate::{Meter, Rate, now_ns};

/// The end of a WebSocket whose peer sent a message that is too long (RFC 6455, 7.4.1: 1009).
pub(super) const TOO_LARGE: &[u8] =
    b"\x88\x3b\x03\xf1a message is longer than it may be (limits.message_bytes)";

const FIN: u8 = 0x80;
const CONTROL: u8 = 0x08;
const OPCODE: u8 = 0x0f;

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Inbound {
    rate: Option<Rate>,
    most: u64,
    meter: Meter,
    header: [u8; 10],
    have: u8,
    left: u64,
    /// The length of a message that comes in several frames, so far.
    message: u64,
    head: Head,
}

/// What came last before the frames.
#[derive(Debug, Default)]
struct Head {
    last: [u8; 2],
    /// With how many requests before it the end of one came, and nothing behind it.
    ended_after: Option<u64>,
}

impl Inbound {
    /// So many frames a second, and so many bytes of a message.
    pub(super) fn new(rate: Option<Rate>, most: u64) -> Self {
        Self {
            rate,
            most,
            meter: Meter::default(),
            header: [0; 10],
            have: 0,
            left: 0,
            message: 0,
            head: Head::default(),
        }
    }

    /// Takes note of bytes that came while there was no WebSocket yet, but so many requests.
    pub(super) fn before(&mut self, bytes: &[u8], requests: u64) {
        if !bytes.is_empty() {
            self.head.take(bytes, requests);
        }
    }

    /// Whether its frames begin behind the answer to the newest of so many requests: a client has to wait for that
    /// (RFC 6455, 4.1). From one that did not, the library has got what never came by here.
    pub(super) fn begins_with(&self, requests: u64) -> bool {
        self.head.ended_after.is_some_and(|before| before + 1 == requests)
    }

    /// Goes on over bytes that came.
    ///
    /// # Errors
    /// What they are too much of.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let frames = self.advance(bytes)?;
        match self.rate.filter(|_| frames > 0) {
            Some(rate) => self.meter.take(rate, frames, now_ns()).map_err(|_| Reason::Flood),
            None => Ok(()),
        }
    }

    /// How many frames begin in `bytes`.
    fn advance(&mut self, mut bytes: &[u8]) -> Result<u32, Reason> {
        let mut frames = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.header[usize::from(self.have)] = *first;
            self.have += 1;
            bytes = rest;
            if let Some((payload, left)) = lengths(&self.header[..usize::from(self.have)]) {
                (self.have, self.left) = (0, left);
                frames += 1;
                self.measure(payload)?;
            }
        }
        Ok(frames)
    }

    /// Adds the payload of a frame to the message that it is of.
    fn measure(&mut self, payload: u64) -> Result<(), Reason> {
        let opcode = self.header[0] & OPCODE;
        let whole = if opcode == 0 { self.message.saturating_add(payload) } else { payload };
        if whole > self.most {
            return Err(Reason::TooLarge);
        }
        if opcode & CONTROL == 0 {
            self.message = if self.header[0] & FIN == 0 { whole } else { 0 };
        }
        Ok(())
    }
}

impl Head {
    fn take(&mut self, bytes: &[u8], requests: u64) {
        let end = |at: usize| {
            let before = |n: usize| match at.checked_sub(n) {
                Some(at) => bytes[at],
                None => self.last[2 + at - n],
            };
            before(1) == b'\n' || (before(1) == b'\r' && before(2) == b'\n')
        };
        // Most that is long ends otherwise, and is not looked through.
        let is_whole = bytes.ends_with(b"\n")
            && memchr::memchr_iter(b'\n', bytes).find(|at| end(*at)) == Some(bytes.len() - 1);
        self.ended_after = is_whole.then_some(requests);
        for byte in &bytes[bytes.len().saturating_sub(2)..] {
            self.last = [self.last[1], *byte];
        }
    }
}

/// The length of a frame's payload, and how much follows, once that is known: the mask and the payload.
fn lengths(header: &[u8]) -> Option<(u64, u64)> {
    let (short, is_masked) = (header.get(1)? & 0x7f, header[1] & 0x80 != 0);
    let payload = match short {
        126 => u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?)),
        127 => u64::from_be_bytes(header.get(2..10)?.try_into().ok()?),
        short => u64::from(short),
    };
    Some((payload, payload.saturating_add(if is_masked { 4 } else { 0 })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0x81];
        match len {
            0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.resize(frame.len() + len, 0x81);
        frame
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let bytes: Vec<u8> = [0, 1, 125, 126, 70_000, 3].into_iter().flat_map(frame).collect();
        for step in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut inbound = Inbound::new(Some(Rate::per_second(1)), u64::MAX);
            let frames: u32 = bytes.chunks(step).map(|part| inbound.advance(part).unwrap()).sum();
            assert_eq!((frames, inbound.have, inbound.left), (6, 0, 0), "{step}");
        }
    }

    #[test]
    fn too_many_frames_are_too_many() {
        let mut inbound = Inbound::new(Some(Rate::per_second(1000)), u64::MAX);
        assert!((0..10).all(|_| inbound.take(&frame(3).repeat(100)).is_ok()));
        assert!((0..20).any(|_| inbound.take(&frame(3).repeat(100)) == Err(Reason::Flood)));
        let mut inbound = Inbound::new(Some(Rate::per_second(10)), u64::MAX);
        assert!((0..100).all(|_| inbound.take(&[]).is_ok()));
        assert!(inbound.take(&frame(100_000)).is_ok());
        let mut inbound = Inbound::new(None, u64::MAX);
        assert!(inbound.take(&frame(3).repeat(100_000)).is_ok());
    }

    #[test]
    fn a_message_is_too_long_as_soon_as_its_length_is_known() {
        let longest = 1000;
        let fits = frame(longest);
        let long = frame(longest + 1);
        let mut inbound = Inbound::new(None, longest as u64);
        assert_eq!(inbound.take(&fits.repeat(3)), Ok(()));
        assert_eq!(inbound.take(&long[..3]), Ok(()));
        assert_eq!(inbound.take(&long[3..4]), Err(Reason::TooLarge));
        // 2^64 - 1 bytes.
        let mut inbound = Inbound::new(None, longest as u64);
        assert_eq!(inbound.take(&[&[0x82, 0xff][..], &[0xff; 8]].concat()), Err(Reason::TooLarge));
    }

    #[test]
    fn a_message_in_several_frames_is_as_long_as_all_of_them() {
        let part = |first: u8, len: usize| {
            let mut frame = frame(len);
            frame[0] = first;
            frame
        };
        let (begin, go_on, end, ping) = (0x01, 0x00, 0x80, 0x89);
        let mut inbound = Inbound::new(None, 1000);
        for _ in 0..5 {
            let message = [part(begin, 400), part(go_on, 400), part(ping, 100), part(end, 200)].concat();
            assert_eq!(inbound.take(&message), Ok(()));
        }
        let message = [part(begin, 400), part(ping, 100), part(go_on, 400), part(go_on, 201)].concat();
        assert_eq!(inbound.take(&message), Err(Reason::TooLarge));
    }

    #[test]
    fn frames_begin_behind_a_head_and_its_answer() {
        let head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let begins = |parts: &[(&[u8], u64)]| {
            let mut inbound = Inbound::new(None, 1000);
            parts.iter().for_each(|(part, requests)| inbound.before(part, *requests));
            inbound.begins_with(1)
        };
        for cut in 0..head.len() {
            assert!(begins(&[(&head[..cut], 0), (&head[cut..], 0)]), "{cut}");
        }
        assert!(begins(&[(b"POST / HTTP/1.1\r\n\r\nbody", 0), (head, 0)]));
        assert!(begins(&[(b"GET / HTTP/1.1\n\n", 0)]) && begins(&[(b"GET / HTTP/1.1\r\n\n", 0)]));
        for early in [&b"\x81"[..], b"\x81\x84\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\n", b"\r"] {
            for cut in 0..head.len() {
                let rest = [&head[cut..], early].concat();
                assert!(!begins(&[(&head[..cut], 0), (&rest, 0)]), "{cut} {early:?}");
            }
            // While the answer is on its way.
            assert!(!begins(&[(head, 0), (early, 1)]), "{early:?}");
        }
        assert!(!begins(&[]) && !begins(&[(head, 1)]));
    }

    #[test]
    fn the_close_frame_says_how_long_it_is() {
        assert_eq!(TOO_LARGE.len(), 2 + usize::from(TOO_LARGE[1]));
        assert_eq!(TOO_LARGE[2..4], 1009_u16.to_be_bytes());
    }
}
