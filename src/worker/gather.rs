//! Packets of a batch that wait for others of their flow, to be written as one super-packet.
//!
//! A device takes one packet with each write, and each write goes through the whole of the receiver's IP layer: a
//! super-packet of many datagrams goes through it once. Nothing waits longer than the batch it was read in, and packets of
//! one flow leave in the order that they came in; packets of different flows may change places within a batch, as they
//! would on any way with more than one queue.

use crate::packet::frame::Frame;
use crate::packet::merge::{Merged, Piece};
use crate::path::SendFailure;
use crate::snapshot::PortId;

/// Flows whose packets are gathered at the same time. Each that is more has to be looked for with every packet.
const GROUPS: usize = 8;

/// Super-packets that grow.
pub(super) struct Gather {
    groups: Vec<Group>,
    /// Those from the front on that have something in them.
    used: usize,
    /// Which is given up next where all are used.
    next: usize,
}

struct Group {
    port: PortId,
    merged: Merged,
}

/// Packets that were gathered and could not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsent {
    /// Why.
    pub(super) failure: SendFailure,
    /// How many they were.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Gather {
    /// Nothing gathered.
    pub(super) fn new() -> Self {
        let groups = (0..GROUPS).map(|_| Group { port: PortId(0), merged: Merged::new() }).collect();
        Self { groups, used: 0, next: 0 }
    }

    /// Takes a packet in, out of its frame. What has to leave first, or is complete with it, goes to `write`.
    pub(super) fn take(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        piece: Piece,
        mut write: impl FnMut(PortId, &mut Merged),
    ) {
        let used = self.groups.iter_mut().take(self.used);
        let of_flow = |group: &Group| group.port == port && group.merged.is_of_flow(frame, &piece);
        if let Some((place, group)) = used.enumerate().find(|(_, group)| of_flow(group)) {
            if group.merged.add(frame, &piece) {
                if group.merged.is_complete() {
                    self.give_up(place, &mut write);
                }
                return;
            }
            self.give_up(place, &mut write);
        }
        if self.used == self.groups.len() {
            let place = self.next % self.groups.len().max(1);
            self.next = self.next.wrapping_add(1);
            self.give_up(place, &mut write);
        }
        let Some(group) = self.groups.get_mut(self.used) else { return };
        group.port = port;
        group.merged.begin(frame, piece);
        self.used += 1;
    }

    /// Lets everything go that is to leave through a port.
    pub(super) fn give_up_port(&mut self, port: PortId, mut write: impl FnMut(PortId, &mut Merged)) {
        let mut place = 0;
        while place < self.used {
            if self.groups.get(place).is_some_and(|group| group.port == port) {
                self.give_up(place, &mut write);
            } else {
                place += 1;
            }
        }
    }

    /// Lets everything go.
    pub(super) fn give_up_all(&mut self, mut write: impl FnMut(PortId, &mut Merged)) {
        for group in self.groups.iter_mut().take(self.used) {
            write(group.port, &mut group.merged);
        }
        self.used = 0;
    }

    /// Lets one go; the last takes its place.
    fn give_up(&mut self, place: usize, write: &mut impl FnMut(PortId, &mut Merged)) {
        let Some(group) = self.groups.get_mut(place) else { return };
        write(group.port, &mut group.merged);
        self.used -= 1;
        self.groups.swap(place, self.used);
    }
}
