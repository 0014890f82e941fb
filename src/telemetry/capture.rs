//! Packets that were seen, as a pcapng file: an interface for each port, the direction in the flags, what became of a packet
//! as its comment, and what was lost as statistics at the end.
//!
//! Super-packets are written as they are, with a comment that says so: they are larger than the MTU, and a checksum that a
//! device would finish looks wrong.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::trace::TracedVerdict;
use crate::packet::frame::Checksum;
use crate::path::{DropReason, Verdict};
use crate::port::pcapng::{self, Direction, LINK_TYPE_RAW_OF_SEVERAL};
use crate::snapshot::{PortId, Snapshot};
use crate::worker::{Image, Seen, What};

/// Reads what is to be written, of `entered,left,dropped` any.
///
/// # Errors
/// What is wrong with it.
pub fn parse_what(text: &str) -> Result<What, String> {
    let mut what = What { entered: false, left: false, dropped: false };
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

/// A port in the file. A number of a port that is given to another one, by a change, is another interface from then on.
#[derive(Debug)]
struct Interface {
    port: PortId,
    name: String,
    /// Packets that were written of it.
    packets: u64,
}

/// Makes the file piece by piece; each piece ends with a whole block.
#[derive(Debug)]
pub struct Capture {
    what: What,
    snaplen: usize,
    /// In the order of their numbers in the file.
    interfaces: Vec<Interface>,
    /// The number that each port has now.
    numbers: BTreeMap<PortId, u32>,
    seen: u64,
    packets: u64,
}

impl Capture {
    /// A file without packets.
    pub fn new(what: What, snaplen: usize) -> Self {
        Self { what, snaplen, interfaces: Vec::new(), numbers: BTreeMap::new(), seen: 0, packets: 0 }
    }

    /// What is written.
    pub fn what(&self) -> What {
        self.what
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
    pub fn add(&mut self, seen: &Seen, out: &mut Vec<u8>) {
        let snapshot = &*seen.snapshot;
        self.seen += 1;
        let verdict = seen.verdict.map(|verdict| TracedVerdict::of(verdict, snapshot).to_string());
        if let Some(image) = self.what.entered_of(seen) {
            let comment = verdict.clone().unwrap_or_default();
            self.packet(seen, image, Direction::Inbound, comment, out);
        }
        let cause = match (&seen.entered, seen.verdict) {
            (Some((_, entered)), Some(Verdict::Forwarded(_))) => {
                format!("entered through {}", snapshot.port_name(entered.port))
            }
            (Some((_, entered)), _) => {
                let verdict = verdict.unwrap_or_default();
                format!("made by the node for a packet from {}: {verdict}", snapshot.port_name(entered.port))
            }
            (None, _) => "made by the node by itself: a flow was ended or moved, or waited in vain".to_owned(),
        };
        for (image, result) in self.what.left_of(seen) {
            if let Err(failure) = result {
                let reason = DropReason::from(*failure);
                let comment = format!("not sent, {}: {}", reason.name(), reason.text());
                self.packet(seen, image, Direction::Outbound, comment, out);
            } else {
                self.packet(seen, image, Direction::Outbound, cause.clone(), out);
            }
        }
    }

    /// The end: what was lost of each port.
    pub fn end(&mut self, lost: &[(PortId, u64)], unsent: u64, snapshot: &Snapshot, out: &mut Vec<u8>) {
        for (port, _) in lost {
            self.interface(*port, snapshot, out);
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (number, Interface { port, packets, .. }) in (0..).zip(&self.interfaces) {
            // What was lost is known by the number: it counts at whom the number is of now.
            let is_last = self.numbers.get(port) == Some(&number);
            let lost = lost.iter().find(|(of, _)| is_last && of == port).map_or(0, |(_, lost)| *lost);
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
            let _ = pcapng::write_statistics(out, number, at, (packets + lost, lost), &comment);
        }
    }

    fn packet(&mut self, seen: &Seen, image: &Image, direction: Direction, mut comment: String, out: &mut Vec<u8>) {
        if let Some(segmentation) = image.offload.segmentation {
            comment.push_str(&format!(
                "; super-packet of {} segments of {} bytes: larger than the MTU, as the kernel hands it over",
                image.segments, segmentation.size
            ));
        }
        if matches!(image.offload.checksum, Checksum::Partial { .. }) {
            comment.push_str("; checksum partial: a device finishes it");
        }
        let interface = self.interface(image.port, &seen.snapshot, out);
        let at: Duration = seen.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = image.bytes.get(..self.snaplen).unwrap_or(&image.bytes);
        let (length, id) = (image.length, Some(self.seen));
        let packet = pcapng::Packet { interface, at, bytes, length, direction, id, comment: &comment };
        let _ = pcapng::write_packet(out, &packet);
        if let Some(interface) = self.interfaces.get_mut(interface as usize) {
            interface.packets += 1;
        }
        self.packets += 1;
    }

    /// The number of a port's interface, which is described where it is new.
    fn interface(&mut self, port: PortId, snapshot: &Snapshot, out: &mut Vec<u8>) -> u32 {
        let name = snapshot.port(port).map(|port| port.name.as_str());
        if let Some(number) = self.numbers.get(&port)
            && let Some(known) = self.interfaces.get(*number as usize)
            && name.is_none_or(|name| name == known.name)
        {
            return *number;
        }
        let number = self.interfaces.len() as u32;
        let kind = snapshot.port(port).map_or("", |port| crate::control::ports::kind_name(port.kind));
        let snaplen = u32::try_from(self.snaplen).unwrap_or(0);
        let name = snapshot.port_name(port);
        let _ = pcapng::write_interface(out, LINK_TYPE_RAW_OF_SEVERAL, &name, kind, snaplen);
        self.interfaces.push(Interface { port, name, packets: 0 });
        self.numbers.insert(port, number);
        number
    }
}
