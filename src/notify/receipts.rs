//! Receipts: tells the inbox which messages were written to a device of their user.
//!
//! Transports write without waiting, so receipts wait here. What finds no room is dropped, and what was dropped
//! counts as not delivered: the message then waits in the offline list although a device has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::inbox::{Inbox, InboxError, Receipt};
use crate::tasks::Tasks;

/// So many receipts may wait.
const WAITING: usize = 8192;
/// How many are noted at once.
const NOTED_AT_ONCE: usize = 512;
/// The pause before receipts that could not be noted are offered again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
enum Note {
    Delivered(Receipt),
    Failed(Receipt),
}

/// The way to the inbox for those who write to devices. Clones share it.
#[derive(Debug, Clone)]
pub struct Receipts {
    notes: mpsc::Sender<Note>,
}

impl Receipts {
    /// A task of `tasks` notes in `inbox` what is handed in here.
    #[must_use]
    pub fn start(inbox: Arc<dyn Inbox>, tasks: &Tasks) -> Self {
        let (notes, waiting) = mpsc::channel(WAITING);
        tasks.spawn("receipts", note_all(inbox, waiting));
        Self { notes }
    }

    /// A message was written to a device. Never waits.
    pub fn delivered(&self, receipt: Receipt) {
        if self.notes.try_send(Note::Delivered(receipt)).is_err() {
            tracing::warn!(
                "too many receipts wait; a message stays in the offline list though a device has it"
            );
        }
    }

    /// The connection broke before the device can be trusted to have them.
    pub async fn failed(&self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            // Closed means that the process ends.
            let _ = self.notes.send(Note::Failed(receipt)).await;
        }
    }
}

async fn note_all(inbox: Arc<dyn Inbox>, mut waiting: mpsc::Receiver<Note>) {
    let mut notes = Vec::with_capacity(NOTED_AT_ONCE);
    while waiting.recv_many(&mut notes, NOTED_AT_ONCE).await > 0 {
        // In runs of one kind: a delivery and its failure keep their order.
        for run in notes.chunk_by(|a, b| matches!(a, Note::Failed(_)) == matches!(b, Note::Failed(_))) {
            while let Err(error) = note(&*inbox, run).await {
                tracing::warn!(%error, "what was delivered could not be noted; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
        notes.clear();
    }
}

async fn note(inbox: &dyn Inbox, run: &[Note]) -> Result<(), InboxError> {
    let failed = matches!(run.first(), Some(Note::Failed(_)));
    let receipts = run.iter().map(|note| match note {
        Note::Delivered(receipt) | Note::Failed(receipt) => receipt.clone(),
    });
    let receipts = receipts.collect();
    if failed { inbox.failed(receipts).await } else { inbox.delivered(receipts).await }
}
