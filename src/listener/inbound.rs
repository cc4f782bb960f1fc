//! What comes in over a WebSocket, counted in frames (RFC 6455, 5.2): whoever sends far more of them than anybody has a
//! reason to is ended before they are looked at.

use crate::limits::rate::{Meter, Rate, now_ns};

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Inbound {
    rate: Rate,
    meter: Meter,
    header: [u8; 10],
    have: u8,
    left: u64,
}

impl Inbound {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, meter: Meter::default(), header: [0; 10], have: 0, left: 0 }
    }

    /// Goes on over bytes that came; whether they may.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let frames = self.advance(bytes);
        frames == 0 || self.meter.take(self.rate, frames, now_ns()).is_ok()
    }

    /// How many frames begin in `bytes`.
    fn advance(&mut self, mut bytes: &[u8]) -> u32 {
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
            if let Some(left) = left(&self.header[..usize::from(self.have)]) {
                (self.have, self.left) = (0, left);
                frames += 1;
            }
        }
        frames
    }
}

/// How much follows the length of a frame, once that is known: the mask and the payload.
fn left(header: &[u8]) -> Option<u64> {
    let (short, is_masked) = (header.get(1)? & 0x7f, header[1] & 0x80 != 0);
    let payload = match short {
        126 => u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?)),
        127 => u64::from_be_bytes(header.get(2..10)?.try_into().ok()?),
        short => u64::from(short),
    };
    Some(payload.saturating_add(if is_masked { 4 } else { 0 }))
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
            let mut inbound = Inbound::new(Rate::per_second(1));
            let frames: u32 = bytes.chunks(step).map(|part| inbound.advance(part)).sum();
            assert_eq!((frames, inbound.have, inbound.left), (6, 0, 0), "{step}");
        }
    }

    #[test]
    fn too_many_frames_are_too_many() {
        let mut inbound = Inbound::new(Rate::per_second(1000));
        assert!((0..10).all(|_| inbound.take(&frame(3).repeat(100))));
        assert!((0..20).any(|_| !inbound.take(&frame(3).repeat(100))));
        let mut inbound = Inbound::new(Rate::per_second(10));
        assert!((0..100).all(|_| inbound.take(&[])));
        assert!(inbound.take(&frame(100_000)));
    }
}
