//! What waits for the server, oldest first, in bounded room: in memory, then in a file.
//!
//! The file has no name: nothing is left of it when the process ends, however it ends. What finds no room is left
//! out and counted; the numbers of the lines show where.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// How much may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolLimits {
    /// In memory.
    pub memory_bytes: usize,
    /// In the file.
    pub file_bytes: u64,
    /// Where the file is; the system's directory for temporary files if absent.
    pub directory: Option<PathBuf>,
}

impl Default for SpoolLimits {
    /// A mebibyte, and four times what the log of a test may have in all.
    fn default() -> Self {
        Self { memory_bytes: 1 << 20, file_bytes: 64 << 20, directory: None }
    }
}

/// Records that wait, in order.
#[derive(Debug)]
pub(super) struct Spool {
    limits: SpoolLimits,
    // The oldest ones; as long as the file holds some, new ones go there.
    memory: VecDeque<Vec<u8>>,
    memory_bytes: usize,
    file: Option<Overflow>,
    left_out: u64,
}

/// Records behind each other, each after its length.
#[derive(Debug)]
struct Overflow {
    file: File,
    read_at: u64,
    write_at: u64,
}

impl Spool {
    pub(super) fn new(limits: SpoolLimits) -> Self {
        Self { limits, memory: VecDeque::new(), memory_bytes: 0, file: None, left_out: 0 }
    }

    /// Adds a record, where there is room for it.
    pub(super) fn push(&mut self, record: Vec<u8>) {
        if self.file.is_none() && self.memory_bytes + record.len() <= self.limits.memory_bytes {
            self.memory_bytes += record.len();
            self.memory.push_back(record);
        } else if self.overflow(&record).is_err() {
            self.left_out += 1;
        }
    }

    /// Takes the oldest records: up to `max` of them and about `max_bytes`, but at least one if there is any.
    pub(super) fn take(&mut self, max: usize, max_bytes: usize) -> Vec<Vec<u8>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < max {
            if self.memory.is_empty() {
                self.refill();
            }
            let Some(next) = self.memory.front().map(Vec::len) else { break };
            if !taken.is_empty() && bytes + next > max_bytes {
                break;
            }
            bytes += next;
            self.memory_bytes -= next;
            taken.extend(self.memory.pop_front());
        }
        taken
    }

    /// Puts back what was taken last, in its order: it is the oldest again, and was within the bounds before.
    pub(super) fn give_back(&mut self, records: Vec<Vec<u8>>) {
        for record in records.into_iter().rev() {
            self.memory_bytes += record.len();
            self.memory.push_front(record);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file.is_none()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.memory.clear();
        self.memory_bytes = 0;
        self.file = None;
    }

    /// How many records found no room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn overflow(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let overflow = match &mut self.file {
            Some(overflow) => overflow,
            None => {
                let directory = self.limits.directory.clone().unwrap_or_else(std::env::temp_dir);
                let file = tempfile::tempfile_in(directory)?;
                self.file.insert(Overflow { file, read_at: 0, write_at: 0 })
            }
        };
        let end = overflow.write_at + 4 + u64::from(length);
        let written = if end > self.limits.file_bytes {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        } else {
            let Overflow { file, write_at, .. } = &*overflow;
            file.write_all_at(&length.to_le_bytes(), *write_at)
                .and_then(|()| file.write_all_at(record, *write_at + 4))
        };
        // What was half written is written over by the next one.
        if written.is_ok() {
            overflow.write_at = end;
        } else if overflow.read_at == overflow.write_at {
            self.file = None;
        }
        written
    }

    /// Takes a memory full of records out of the file.
    fn refill(&mut self) {
        let Some(overflow) = &mut self.file else { return };
        while overflow.read_at < overflow.write_at
            && (self.memory.is_empty() || self.memory_bytes < self.limits.memory_bytes / 2)
        {
            let Ok(record) = overflow.next() else {
                // A file that cannot be read back any more has nothing for us.
                self.left_out += 1;
                self.file = None;
                return;
            };
            self.memory_bytes += record.len();
            self.memory.push_back(record);
        }
        if overflow.read_at == overflow.write_at {
            self.file = None;
        }
    }
}

impl Overflow {
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.read_at)?;
        let length = u32::from_le_bytes(length);
        let mut record = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut record, self.read_at + 4)?;
        self.read_at += 4 + u64::from(length);
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(memory_bytes: usize, file_bytes: u64) -> Spool {
        Spool::new(SpoolLimits { memory_bytes, file_bytes, directory: None })
    }

    fn record(n: u32) -> Vec<u8> {
        format!("record {n:04}").into_bytes()
    }

    #[test]
    fn what_comes_out_is_what_went_in_wherever_it_waited() {
        let mut spool = spool(100, 1 << 20);
        let (mut pushed, mut taken) = (0, 0);
        // Grows beyond the memory, shrinks to nothing, and grows again.
        for (push, take) in [(5, 2), (100, 30), (3, 60), (0, 16), (200, 1), (1, 199), (5, 6)] {
            for _ in 0..push {
                spool.push(record(pushed));
                pushed += 1;
            }
            for _ in 0..take {
                assert_eq!(spool.take(1, 1), [record(taken)]);
                taken += 1;
            }
            assert!(spool.memory_bytes <= 200, "{}", spool.memory_bytes);
            assert_eq!(spool.is_empty(), pushed == taken);
        }
        assert_eq!((pushed, spool.left_out()), (taken, 0));
        assert!(spool.take(10, 1000).is_empty());
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_what_is_there_stays() {
        let mut spool = spool(22, 30);
        for n in 0..10 {
            spool.push(record(n));
        }
        assert_eq!(spool.left_out(), 6);
        assert_eq!(spool.take(100, 1 << 20), [0, 1, 2, 3].map(record));
        spool.push(record(10));
        assert_eq!(spool.take(100, 1 << 20), [record(10)]);
    }

    #[test]
    fn a_take_is_bounded_but_never_empty_handed() {
        let mut spool = spool(1000, 0);
        (0..5).for_each(|n| spool.push(record(n)));
        assert_eq!(spool.take(2, 1000).len(), 2);
        assert_eq!(spool.take(10, 22).len(), 2);
        assert_eq!(spool.take(10, 1).len(), 1);
    }

    #[test]
    fn without_a_directory_for_its_file_it_leaves_out_and_goes_on() {
        let limits =
            SpoolLimits { memory_bytes: 11, file_bytes: 1 << 20, directory: Some("/nowhere".into()) };
        let mut spool = Spool::new(limits);
        (0..3).for_each(|n| spool.push(record(n)));
        assert_eq!((spool.left_out(), spool.take(9, 99).len(), spool.is_empty()), (2, 1, true));
    }
}
