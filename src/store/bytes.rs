//! Numbers and texts as bytes, as packs and runs are made of them: short numbers are short.

/// Adds `n`, seven bits a byte, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Adds a number that may be negative; those near zero are short.
pub(super) fn put_signed(out: &mut Vec<u8>, n: i64) {
    put(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Adds `text` behind its length.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what the functions above wrote. `None` is damage: something that none of them writes.
#[derive(Debug, Clone)]
pub(super) struct Bytes<'b> {
    all: &'b [u8],
    at: usize,
}

impl<'b> Bytes<'b> {
    pub(super) fn of(all: &'b [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.all.len()
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.all.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number that counts something in memory.
    pub(super) fn count(&mut self) -> Option<usize> {
        // Whatever is counted takes a byte at least, so a larger number is damage, and nobody makes room for it.
        usize::try_from(self.number()?).ok().filter(|n| *n <= self.all.len())
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn text(&mut self) -> Option<&'b str> {
        let len = self.count()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_come_back_as_they_were() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 1, -64, 64, i64::MIN, i64::MAX];
        let mut out = Vec::new();
        numbers.iter().for_each(|n| put(&mut out, *n));
        signed.iter().for_each(|n| put_signed(&mut out, *n));
        put_text(&mut out, "ünï");
        let mut bytes = Bytes::of(&out);
        assert!(numbers.iter().all(|n| bytes.number() == Some(*n)));
        assert!(signed.iter().all(|n| bytes.signed() == Some(*n)));
        assert_eq!(bytes.text(), Some("ünï"));
        assert!(bytes.is_at_end());
        assert_eq!((bytes.byte(), bytes.number(), bytes.text()), (None, None, None));
    }

    #[test]
    fn what_was_never_written_is_damage() {
        assert_eq!(Bytes::of(&[0xff; 11]).number(), None, "a number without an end");
        assert_eq!(Bytes::of(&[5, b'a']).text(), None, "a text longer than all there is");
        assert_eq!(Bytes::of(&[1, 0xff]).text(), None, "not UTF-8");
    }
}
