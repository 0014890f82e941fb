//! Somebody who follows the flow log, and is told what it could not be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::FlowLogLine;
use super::batch::Batch;
use crate::control::streamed::Streamed;
use crate::telemetry::flow_json::push_record;

/// Pieces that wait for who follows, and their bytes: some thousand records. They are shared with others who follow.
const PIECES: usize = 8_192;
const BYTES: usize = 8 << 20;

/// A piece is as large as this and one record at most: what finds no room is lost a piece at a time.
const PIECE: usize = 32 << 10;

/// Somebody who follows.
pub(super) struct Follower {
    pieces: mpsc::Sender<Bytes>,
    /// Bytes that were sent and are still there.
    held: Arc<AtomicUsize>,
    /// What the queues had lost when it was told last.
    known: u64,
    /// What it was not told yet that it lost.
    lost: u64,
}

/// Lines of records, once for all who follow.
pub(super) struct Piece {
    text: Bytes,
    records: u64,
}

/// Text that is held for somebody until it is written.
struct Held {
    text: Bytes,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.text.len(), Relaxed);
    }
}

/// Puts records into lines.
pub(super) fn pieces(batch: &Batch) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut text, mut records) = (Vec::new(), 0);
    let mut end = |text: Vec<u8>, records| pieces.push(Piece { text: text.into(), records });
    for words in batch.words() {
        // FlowLogLine::Record
        text.extend_from_slice(b"{\"record\":");
        push_record(&mut text, words);
        text.extend_from_slice(b"}\n");
        records += 1;
        if text.len() >= PIECE {
            end(std::mem::replace(&mut text, Vec::with_capacity(PIECE + 2_048)), std::mem::take(&mut records));
        }
    }
    if records > 0 {
        end(text, records);
    }
    pieces
}

impl Follower {
    /// Who follows from now on, when queues have lost so much, and what it reads.
    pub(super) fn new(known: u64) -> (Self, Streamed) {
        let (pieces, received) = mpsc::channel(PIECES);
        (Self { pieces, held: Arc::default(), known, lost: 0 }, Streamed(received))
    }

    /// Whether it has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.pieces.is_closed()
    }

    /// Tells records, or counts them as lost.
    pub(super) fn tell(&mut self, piece: &Piece) {
        self.tell_lost(1);
        let length = piece.text.len();
        // The last place is for the last line, which says what was lost.
        if self.lost > 0 || self.pieces.capacity() < 2 || self.held.load(Relaxed) + length > BYTES {
            self.lost += piece.records;
            return;
        }
        self.held.fetch_add(length, Relaxed);
        // Where it has gone meanwhile nobody misses it.
        let _ = self.pieces.try_send(Bytes::from_owner(Held { text: piece.text.clone(), held: self.held.clone() }));
    }

    /// Tells what was lost until now, here and in the queues, which lost so much.
    pub(super) fn look(&mut self, lost: u64) {
        self.lost += lost.saturating_sub(self.known);
        self.known = lost;
        self.tell_lost(1);
    }

    /// Tells for the last time what was lost.
    pub(super) fn end(mut self, lost: u64) {
        self.look(lost);
        self.tell_lost(0);
    }

    /// Tells what was lost where more places than these are left.
    fn tell_lost(&mut self, places: usize) {
        if self.lost == 0 || self.pieces.capacity() <= places {
            return;
        }
        // Nothing in it can fail to be written.
        let mut text = serde_json::to_vec(&FlowLogLine::Lost(self.lost)).unwrap_or_default();
        text.push(b'\n');
        if self.pieces.try_send(text.into()).is_ok() {
            self.lost = 0;
        }
    }
}
