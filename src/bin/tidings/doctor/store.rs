//! The embedded store: its directory, its disk, and its file.

use std::path::Path;

use tidings::store::examine::{self, Examined};

use super::Check;

/// Below this the disk is as good as full.
const LITTLE_BYTES: u64 = 256 << 20;
/// Below this it may be full soon.
const SMALL_BYTES: u64 = 2 << 30;

pub(super) fn look(dir: &Path) -> Vec<Check> {
    let mut checks = vec![disk(dir)];
    match examine::examine(dir) {
        Ok(None) => checks.push(Check::ok("store", format!("{} has no database yet", dir.display()))),
        Ok(Some(examined)) => checks.extend(file(&examined)),
        Err(error) => {
            checks.push(Check::failed(
                "store",
                error.to_string(),
                "choose the right --data-dir, or restore a backup",
            ));
        }
    }
    checks
}

fn disk(dir: &Path) -> Check {
    const NAME: &str = "disk";
    // Before the first start there is only a directory above it.
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("."));
    let free = match rustix::fs::statvfs(there) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => return Check::skipped(NAME, format!("{}: {error}", there.display())),
    };
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
        let found = format!("{} cannot be written", there.display());
        return Check::failed(
            NAME,
            found,
            "give it to the user that runs the server, or choose another --data-dir",
        );
    }
    let found = format!("{} MiB free at {}", free >> 20, there.display());
    let advice =
        "make room, or shorten history.ttl and queue.retention: on a full disk publishing answers 507";
    if free < LITTLE_BYTES {
        Check::failed(NAME, found, advice)
    } else if free < SMALL_BYTES {
        Check::warning(NAME, found, advice)
    } else {
        Check::ok(NAME, found)
    }
}

fn file(examined: &Examined) -> Vec<Check> {
    let Examined { schema, known, journal, bytes, log_bytes, damage } = examined;
    let version = match schema.cmp(known) {
        std::cmp::Ordering::Greater => Check::failed(
            "store version",
            format!("schema {schema}, this program knows up to {known}"),
            "it was written by a newer tidings: use that one",
        ),
        std::cmp::Ordering::Less => Check::warning(
            "store version",
            format!("schema {schema} of {known}"),
            "the next start brings it up to date; older versions cannot read it then, so keep a copy",
        ),
        std::cmp::Ordering::Equal => Check::ok("store version", format!("schema {schema}")),
    };
    let journal = if journal == "wal" {
        Check::ok("store journal", format!("wal; {} MiB, and {} MiB of log", bytes >> 20, log_bytes >> 20))
    } else {
        Check::warning(
            "store journal",
            format!("`{journal}` in place of `wal`"),
            "the next start sets it; file systems over a network cannot have it, so use a local disk",
        )
    };
    let integrity = match damage.as_slice() {
        [] => Check::ok("store integrity", "sound"),
        damage => Check::failed(
            "store integrity",
            damage.join("; "),
            "stop the server, keep a copy of the directory, and restore a backup",
        ),
    };
    vec![version, journal, integrity]
}
