//! Where the frames of a WebSocket begin and end in the bytes that its server writes (RFC 6455, 5.2), and which of
//! them are fences.

/// The event whose packets are fences. No channel carries an event of such a name.
pub const FENCE: &str = "~";

/// A place in the bytes that a server writes. Its frames are not masked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Walk {
    header: [u8; 10],
    have: usize,
    left: u64,
}

/// What may be written next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes.
    Run(usize),
    /// A fence of so many bytes begins here.
    Fence {
        /// Its number.
        number: u64,
        /// Its bytes.
        len: usize,
    },
}

impl Walk {
    /// Whether a frame of somebody else may begin here.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Goes on over bytes that were written.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.header[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if let Some((_, payload)) = header(&self.header[..self.have]) {
                (self.have, self.left) = (0, payload);
            }
        }
    }

    /// How far `bytes` may be written before a fence.
    pub(super) fn step(&self, bytes: &[u8]) -> Step {
        let (mut walk, mut at) = (*self, 0);
        while !walk.at_boundary() && at < bytes.len() {
            let n = usize::try_from(walk.left.max(1)).unwrap_or(usize::MAX).min(bytes.len() - at);
            walk.advance(&bytes[at..at + n]);
            at += n;
        }
        while let Some((head, payload)) = header(&bytes[at..]) {
            let Some(end) = usize::try_from(payload).ok().and_then(|n| (at + head).checked_add(n)) else {
                break;
            };
            if let Some(number) = bytes.get(at..end).and_then(|frame| fence(&frame[head..])) {
                return if at == 0 { Step::Fence { number, len: end } } else { Step::Run(at) };
            }
            if end >= bytes.len() {
                break;
            }
            at = end;
        }
        Step::Run(bytes.len())
    }
}

/// The length of the header that `bytes` begin with, and of its payload, if they hold all of it.
fn header(bytes: &[u8]) -> Option<(usize, u64)> {
    let long =
        |n: usize| bytes.get(2..2 + n).map(|b| b.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    match bytes.get(1)? & 0x7f {
        126 => Some((4, long(2)?)),
        127 => Some((10, long(8)?)),
        short => Some((2, u64::from(short))),
    }
}

/// The number of the fence, if the payload is one.
fn fence(payload: &[u8]) -> Option<u64> {
    let number = payload.strip_prefix(b"42[\"")?.strip_prefix(FENCE.as_bytes())?.strip_prefix(b"\",")?;
    std::str::from_utf8(number.strip_suffix(b"]")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            n @ 0..=125 => frame.push(u8::try_from(n).unwrap()),
            n @ 126..=0xffff => {
                frame.push(126);
                frame.extend(u16::try_from(n).unwrap().to_be_bytes());
            }
            n => {
                frame.push(127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn boundaries_are_found_wherever_the_bytes_are_cut() {
        let sizes = [0, 1, 125, 126, 300, 70_000];
        let bytes: Vec<u8> = sizes.iter().flat_map(|n| frame(&vec![b'x'; *n])).collect();
        let mut ends = vec![0];
        sizes.iter().for_each(|n| ends.push(ends.last().unwrap() + frame(&vec![0; *n]).len()));
        for cut in 0..=bytes.len() {
            let mut walk = Walk::default();
            walk.advance(&bytes[..cut]);
            assert_eq!(walk.at_boundary(), ends.contains(&cut), "after {cut} bytes");
            walk.advance(&bytes[cut..]);
            assert!(walk.at_boundary());
        }
    }

    #[test]
    fn fences_are_found_among_other_frames_and_nothing_else_is_one() {
        let other = [frame(b"2"), frame(b"42[\"custom:x\",1]"), frame(br#"42["~x",1]"#), frame(&[b'4'; 300])]
            .concat();
        let bytes = [other.clone(), frame(b"42[\"~\",17]"), other.clone()].concat();
        // Whatever was written before of the first frame.
        for cut in 0..frame(b"2").len() {
            let mut walk = Walk::default();
            walk.advance(&bytes[..cut]);
            assert_eq!(walk.step(&bytes[cut..]), Step::Run(other.len() - cut));
        }
        let (walk, len) = (Walk::default(), frame(b"42[\"~\",17]").len());
        assert_eq!(walk.step(&bytes[other.len()..]), Step::Fence { number: 17, len });
        assert_eq!(walk.step(&other), Step::Run(other.len()));
        assert_eq!(walk.step(&other[..3]), Step::Run(3));
        assert_eq!(walk.step(&[]), Step::Run(0));
    }
}
