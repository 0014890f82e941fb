//! Records of flows, for flow logs: what began, goes on and ended, with what passed since the record before, and every packet
//! that did not leave.
//!
//! Workers make them while somebody wants them, into bounded queues, one for each worker; what finds no room is counted with
//! its packets and bytes. So at any time, for packets as for bytes:
//!
//! ```text
//! forwarded = flows told + flows not told yet + related - unsent + lost
//! ```
//!
//! and, for packets, answered and dropped are what records tell of packets that ended here, plus what was lost of those. While
//! nobody wants them there is none of it: no memory, and a comparison or two a packet. Of a flow that was there before
//! anybody wanted them, what passes counts from when the worker has come by it, some milliseconds later: it looks at no more
//! flows between two batches of packets than after a change.
//!
//! What a record does not tell itself follows from its snapshot, which it carries: rules, endpoint, names. Whoever reads it finds
//! them out, off the workers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::flow::Phase;
use super::policy::Named;
use super::redecide::Sides;
use super::subject::Subject;
use super::verdict::{Answer, DropReason};
use crate::snapshot::{NextHopType, PortId, Snapshot};

/// Records of one worker that wait to be taken: a thousand connections that begin, are answered and end in each of ten
/// milliseconds fit.
const WAITING: usize = 1 << 15;

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A flow was made.
    Begin,
    /// Its first answer: TCP is open, or another protocol had something back. Tells no packets.
    Reply,
    /// It goes on.
    Continue,
    /// It has ended.
    End(Ending),
    /// A packet was not forwarded, and somebody was told.
    Answered(Answer),
    /// A packet was dropped; a fragment that waited in vain has no addresses any more.
    Dropped(DropReason),
    /// An ICMP error about a flow went back along it. No flow counts it.
    Related,
    /// Packets that flows have counted could then not leave.
    Unsent(DropReason),
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It fell idle, or its connection was closed and nothing more came.
    Expired,
    /// Another one needed the room.
    Evicted,
    /// A change gave it another path, or none.
    Changed,
    /// What its client named, or did, is denied, for this reason.
    Denied(DropReason),
    /// Its addresses and ports are used for another connection.
    Reused,
    /// The node has ended.
    Stopped,
}

impl Ending {
    /// The stable name, as records carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Changed => "changed",
            Self::Denied(_) => "denied",
            Self::Reused => "reused",
            Self::Stopped => "stopped",
        }
    }
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A flow.
    Flow(Sides),
    /// A packet as it entered.
    Packet(Subject),
    /// Packets of which nothing is known but the port: where they entered; none where that is not known either.
    Port(Option<PortId>),
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it tells.
    pub event: Event,
    /// When, in milliseconds of the workers' clock.
    pub at: u64,
    /// When the flow began, or began to be followed. What began in another process, before the clock did, has wrapped around.
    pub began: u64,
    /// Whom it is about.
    pub about: About,
    /// Packets since the record before of the flow, in each direction.
    pub packets: [u64; 2],
    /// Their bytes.
    pub bytes: [u64; 2],
    /// Type of the next hop of a flow.
    pub next_hop_type: Option<NextHopType>,
    /// How far a flow is.
    pub phase: Option<Phase>,
    /// What the connection named.
    pub named: Named,
    /// The name itself.
    pub name: Option<Box<str>>,
    /// The source that a service would see of a packet that ended at its door; port 0 where a pool would have picked one.
    pub presented: Option<(IpAddr, u16)>,
    /// How long the first answer took, in microseconds: of TCP the handshake, of others the first packet back.
    pub round_trip: Option<u32>,
    /// The worker.
    pub worker: u16,
    /// What it was decided by.
    pub snapshot: Arc<Snapshot>,
}

/// Records of one worker that wait, and what found no room.
#[derive(Debug)]
pub struct Records {
    waiting: ArrayQueue<Record>,
    only_replies: AtomicBool,
    lost: AtomicU64,
    lost_packets: AtomicU64,
    lost_bytes: AtomicU64,
}

/// What found no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records.
    pub records: u64,
    /// Packets in them.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self::with_room(WAITING)
    }
}

impl Records {
    /// Room for so many records.
    pub fn with_room(records: usize) -> Self {
        Self {
            waiting: ArrayQueue::new(records.max(1)),
            only_replies: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            lost_packets: AtomicU64::new(0),
            lost_bytes: AtomicU64::new(0),
        }
    }

    /// Says whether first answers are all that is wanted from now on: then nothing else is made, whatever is dropped meanwhile.
    pub fn want_only_replies(&self, only: bool) {
        self.only_replies.store(only, Relaxed);
    }

    /// Whether a record of an event is wanted.
    pub(crate) fn want(&self, event: Event) -> bool {
        event == Event::Reply || !self.only_replies.load(Relaxed)
    }

    /// The oldest record.
    pub fn take(&self) -> Option<Record> {
        self.waiting.pop()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What found no room so far.
    pub fn lost(&self) -> Lost {
        Lost {
            records: self.lost.load(Relaxed),
            packets: self.lost_packets.load(Relaxed),
            bytes: self.lost_bytes.load(Relaxed),
        }
    }

    /// Whether half of the room is left, at least: what can wait leaves the other half to what cannot.
    pub(super) fn is_half_empty(&self) -> bool {
        self.waiting() <= self.waiting.capacity() / 2
    }

    /// Adds a record, or counts it as lost.
    pub(crate) fn add(&self, record: Record) {
        if let Err(record) = self.waiting.push(record) {
            self.lose(&record);
        }
    }

    /// Counts a record that is lost.
    fn lose(&self, record: &Record) {
        self.lost.fetch_add(1, Relaxed);
        self.lost_packets.fetch_add(record.packets.iter().sum(), Relaxed);
        self.lost_bytes.fetch_add(record.bytes.iter().sum(), Relaxed);
    }
}
