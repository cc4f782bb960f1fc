//! WebSocket frames (RFC 6455), as far as a client of our contract meets them: whole, unmasked frames of a server,
//! and short masked ones of our own.

/// No server of ours sends anything longer; a length beyond is a broken stream.
const MAX_PAYLOAD: u64 = 16 * 1024 * 1024;

pub(super) const TEXT: u8 = 0x1;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// One whole frame of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// How many bytes it takes with its header.
    pub(super) bytes: usize,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the server sent a masked frame")]
    Masked,
    #[error("the server sent a frame of an extension that nobody agreed to")]
    Reserved,
    #[error("the server sent a message in fragments, which this benchmark does not read")]
    Fragment,
    #[error("the server sent a frame of {0} bytes")]
    TooLong(u64),
}

/// The frame at the beginning of `bytes`; `None` while it is cut.
pub(super) fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let &[head, length, ..] = bytes else { return Ok(None) };
    if length & MASKED != 0 {
        return Err(FrameError::Masked);
    }
    if head & RESERVED != 0 {
        return Err(FrameError::Reserved);
    }
    let opcode = head & 0x0F;
    if head & FIN == 0 || opcode == 0 {
        return Err(FrameError::Fragment);
    }
    let (start, length) = match length {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let end = start + usize::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    Ok(bytes.get(start..end).map(|payload| Frame { opcode, payload, bytes: end }))
}

/// Appends a frame of a client, masked with `key` as the protocol demands.
pub(super) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: [u8; 4]) {
    out.push(FIN | opcode);
    match payload.len() {
        short @ 0..126 => out.push(MASKED | u8::try_from(short).unwrap_or_default()),
        long => match u16::try_from(long) {
            Ok(long) => {
                out.push(MASKED | 126);
                out.extend(long.to_be_bytes());
            }
            Err(_) => {
                out.push(MASKED | 127);
                out.extend((long as u64).to_be_bytes());
            }
        },
    }
    out.extend(key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a server writes it.
    fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![FIN | opcode];
        match payload.len() {
            short @ 0..126 => out.push(short as u8),
            middle @ 126..=65535 => {
                out.push(126);
                out.extend((middle as u16).to_be_bytes());
            }
            long => {
                out.push(127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(payload);
        out
    }

    /// What a stream that arrives in two pieces, cut at `cut`, is read as.
    fn read_cut(stream: &[u8], cut: usize) -> Vec<(u8, Vec<u8>)> {
        let mut read = Vec::new();
        let mut kept = Vec::new();
        for piece in [&stream[..cut], &stream[cut..]] {
            kept.extend_from_slice(piece);
            let mut at = 0;
            while let Some(frame) = first(&kept[at..]).expect("a sound stream") {
                read.push((frame.opcode, frame.payload.to_vec()));
                at += frame.bytes;
            }
            kept.drain(..at);
        }
        assert!(kept.is_empty(), "{} bytes are left", kept.len());
        read
    }

    #[test]
    fn frames_of_every_length_are_read_wherever_the_stream_is_cut() {
        let payloads: Vec<Vec<u8>> =
            [0, 1, 125, 126, 127, 300, 65_535, 65_536].iter().map(|&n| vec![b'x'; n]).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| unmasked(TEXT, payload)).collect();
        let expected: Vec<_> = payloads.into_iter().map(|payload| (TEXT, payload)).collect();
        // Every place in and around the headers, and some within the long payloads.
        let cuts = (0..1_100).chain((1_100..stream.len()).step_by(997)).chain(66_200..66_250);
        for cut in cuts.chain([stream.len()]) {
            assert!(read_cut(&stream, cut) == expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(first(&[0x81, 0x80, 0, 0, 0, 0]), Err(FrameError::Masked));
        assert_eq!(first(&[0xC1, 0]), Err(FrameError::Reserved));
        assert_eq!(first(&[0x01, 0]), Err(FrameError::Fragment));
        assert_eq!(first(&[0x80, 0]), Err(FrameError::Fragment));
        let endless = [0x81, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(first(&endless), Err(FrameError::TooLong(u64::MAX)));
    }

    proptest! {
        #[test]
        fn any_frames_cut_anywhere_are_read_as_they_were_written(
            frames in prop::collection::vec((1u8..11, prop::collection::vec(any::<u8>(), 0..400)), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(op, payload)| unmasked(*op, payload)).collect();
            prop_assert_eq!(read_cut(&stream, cut.index(stream.len() + 1)), frames);
        }

        #[test]
        fn a_masked_frame_holds_what_was_put_in(
            payload in prop::collection::vec(any::<u8>(), 0..70_000), key in any::<[u8; 4]>(),
        ) {
            let mut out = Vec::new();
            write_masked(&mut out, TEXT, &payload, key);
            prop_assert_eq!(out[1] & MASKED, MASKED);
            let start = out.len() - payload.len();
            prop_assert_eq!(&out[start - 4..start], &key);
            let read: Vec<u8> = out[start..].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
            prop_assert_eq!(&read, &payload);
            // With the mask's bit and key taken out it is a frame like a server's.
            let mut plain = out[..start - 4].to_vec();
            plain[1] &= !MASKED;
            plain.extend(&payload);
            prop_assert_eq!(first(&plain).unwrap().unwrap().payload, &payload[..]);
        }

        #[test]
        fn no_bytes_make_the_walk_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = first(&bytes);
        }
    }
}
