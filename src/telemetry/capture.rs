//! Packets that were seen, as a pcapng file: an interface for each port, the direction in the flags, what became of a packet
//! as its comment, and what was lost as statistics at the end.
//!
//! Super-packets are written as they are, with a comment that says so: they are larger than the MTU, and a checksum that a
//! device would finish looks wrong.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::trace::{TracedVerdict, port_name};
use crate::packet::frame::Checksum;
use crate::path::{DropReason, Verdict};
use crate::port::pcapng::{self, Direction, LINK_TYPE_RAW_OF_SEVERAL};
use crate::snapshot::{PortId, Snapshot};
use crate::worker::{How, Image, Seen};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    /// Packets as they entered.
    pub entered: bool,
    /// Packets as they left, what the node made itself included.
    pub left: bool,
    /// Packets as they entered that got no further: dropped, or answered in their receiver's place.
    pub dropped: bool,
}

impl Default for What {
    fn default() -> Self {
        Self { entered: true, left: true, dropped: true }
    }
}

impl What {
    /// Of `entered,left,dropped`, any of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut what = Self { entered: false, left: false, dropped: false };
        for word in text.split(',') {
            match word.trim() {
                "entered" => what.entered = true,
                "left" => what.left = true,
                "dropped" => what.dropped = true,
                other => {
                    return Err(format!(
                        "`{other}` is nothing that can be captured: write entered, left, dropped, or several with commas \
                         between them"
                    ));
                }
            }
        }
        Ok(what)
    }
}

/// Makes the file piece by piece; each piece ends with a whole block.
#[derive(Debug)]
pub struct Capture {
    what: What,
    snaplen: usize,
    /// Number of the interface of each port, and packets that were written of it.
    interfaces: BTreeMap<PortId, (u32, u64)>,
    seen: u64,
    packets: u64,
}

impl Capture {
    /// A file without packets.
    pub fn new(what: What, snaplen: usize) -> Self {
        Self { what, snaplen, interfaces: BTreeMap::new(), seen: 0, packets: 0 }
    }

    /// How many packets have been written.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The beginning: who writes, and the ports that there are.
    pub fn begin(&mut self, snapshot: &Snapshot, ports: impl IntoIterator<Item = PortId>, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = pcapng::write_section(out, concat!("sidestep ", env!("CARGO_PKG_VERSION")));
        for port in ports {
            self.interface(port, snapshot, out);
        }
    }

    /// What was seen of a packet.
    pub fn add(&mut self, seen: &Seen, snapshot: &Snapshot, out: &mut Vec<u8>) {
        self.seen += 1;
        let verdict = seen.verdict.map(|verdict| TracedVerdict::of(verdict, snapshot).to_string());
        if let Some((how, image)) = &seen.entered {
            let ended = matches!(seen.verdict, Some(Verdict::Dropped(_) | Verdict::Answered(_)));
            // A fragment that had waited has been written when it came.
            let entered = self.what.entered && (*how != How::Released || ended && self.what.dropped);
            if entered || self.what.dropped && ended {
                let comment = verdict.clone().unwrap_or_default();
                self.packet(seen, image, Direction::Inbound, comment, snapshot, out);
            }
        }
        if !self.what.left {
            return;
        }
        let cause = match (&seen.entered, seen.verdict) {
            (Some((_, entered)), Some(Verdict::Forwarded(_))) => {
                format!("entered through {}", port_name(snapshot, entered.port))
            }
            (Some((_, entered)), _) => {
                let verdict = verdict.unwrap_or_default();
                format!("made by the node for a packet from {}: {verdict}", port_name(snapshot, entered.port))
            }
            (None, _) => "made by the node by itself: a flow was ended or moved, or waited in vain".to_owned(),
        };
        for (image, result) in &seen.left {
            if let Err(failure) = result {
                let reason = DropReason::from(*failure);
                let comment = format!("not sent, {}: {}", reason.name(), reason.text());
                self.packet(seen, image, Direction::Outbound, comment, snapshot, out);
            } else {
                self.packet(seen, image, Direction::Outbound, cause.clone(), snapshot, out);
            }
        }
    }

    /// The end: what was lost of each port.
    pub fn end(&mut self, lost: &[(PortId, u64)], unsent: u64, snapshot: &Snapshot, out: &mut Vec<u8>) {
        for (port, _) in lost {
            self.interface(*port, snapshot, out);
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (port, (interface, packets)) in &self.interfaces {
            let lost = lost.iter().find(|(of, _)| of == port).map_or(0, |(_, lost)| *lost);
            let mut comment = String::new();
            if lost > 0 {
                comment = format!("{lost} matching packets are not in this file: they came faster than it was written");
            }
            if unsent > 0 {
                let between = if comment.is_empty() { "" } else { "; " };
                comment.push_str(&format!(
                    "{between}{unsent} packets of the node, of any flow, were taken for sent and could not leave"
                ));
            }
            let _ = pcapng::write_statistics(out, *interface, at, (packets + lost, lost), &comment);
        }
    }

    fn packet(
        &mut self,
        seen: &Seen,
        image: &Image,
        direction: Direction,
        mut comment: String,
        snapshot: &Snapshot,
        out: &mut Vec<u8>,
    ) {
        if let Some(segmentation) = image.offload.segmentation {
            comment.push_str(&format!(
                "; super-packet of {} segments of {} bytes: larger than the MTU, as the kernel hands it over",
                image.segments, segmentation.size
            ));
        }
        if matches!(image.offload.checksum, Checksum::Partial { .. }) {
            comment.push_str("; checksum partial: a device finishes it");
        }
        let interface = self.interface(image.port, snapshot, out);
        let at: Duration = seen.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = image.bytes.get(..self.snaplen).unwrap_or(&image.bytes);
        let (length, id) = (image.length, Some(self.seen));
        let packet = pcapng::Packet { interface, at, bytes, length, direction, id, comment: &comment };
        let _ = pcapng::write_packet(out, &packet);
        if let Some((_, packets)) = self.interfaces.get_mut(&image.port) {
            *packets += 1;
        }
        self.packets += 1;
    }

    /// The number of a port's interface, which is described where it is new.
    fn interface(&mut self, port: PortId, snapshot: &Snapshot, out: &mut Vec<u8>) -> u32 {
        if let Some((number, _)) = self.interfaces.get(&port) {
            return *number;
        }
        let number = self.interfaces.len() as u32;
        let kind = snapshot.port(port).map_or("", |port| crate::control::ports::kind_name(port.kind));
        let snaplen = u32::try_from(self.snaplen).unwrap_or(0);
        let _ = pcapng::write_interface(out, LINK_TYPE_RAW_OF_SEVERAL, &port_name(snapshot, port), kind, snaplen);
        self.interfaces.insert(port, (number, 0));
        number
    }
}
