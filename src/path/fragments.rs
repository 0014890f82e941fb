//! Fragments follow the flow of their packet. Only the first has the ports: what comes before it waits, what comes after
//! it is told them. Nothing is put together; ranges of bytes are kept to refuse overlaps (RFC 5722), which serve only to
//! show a filter another packet than the receiver.

use super::core::Core;
use super::egress::Egress;
use super::observer::Silent;
use super::origin;
use super::record::{About, Event};
use super::stages;
use super::subject::Subject;
use super::verdict::{DropReason, Verdict};
use super::way::{Packet, Tables, way};
use crate::packet::frame::{FragmentFacts, Frame};
use crate::packet::parse::{Fragment, Parsed};
use crate::snapshot::{PortId, PortKind};
use crate::table::fragments::{FragmentKey, FragmentTable, LIFETIME, Met, Ports, Range};

/// The packets in fragments that a worker follows.
pub(super) struct Fragments {
    table: FragmentTable,
    /// The packet whose first fragment has just come, and whose other fragments are let go.
    releasing: Option<(FragmentKey, FragmentFacts)>,
}

impl Fragments {
    pub(super) fn new() -> Self {
        Self { table: FragmentTable::new(LIFETIME), releasing: None }
    }

    /// The way of a fragment. All fragments of a packet go to one worker, which knows its ports once the first has come,
    /// and from there to the worker that owns the flow.
    pub(super) fn way(
        &mut self,
        core: &mut Core,
        tables: &mut Tables,
        packet: &mut Packet<'_>,
        egress: &mut impl Egress,
    ) -> Verdict {
        if let Some(facts) = packet.frame.fragment {
            packet.know(facts);
            egress.stage(|| stages::fragment("its ports are known"));
            return way(core, tables, packet, egress);
        }
        if let Err(reason) = admit(core, packet) {
            return Verdict::Dropped(reason);
        }
        let parsed = &packet.parsed;
        let key = key_of(packet.ingress, parsed);
        let follower = core.settings.shared.follower(&key);
        if packet.may_hand_over && follower != core.settings.worker {
            return Verdict::HandOver(follower);
        }
        let first = (parsed.fragment == Fragment::First).then(|| Ports {
            source: parsed.source_port,
            destination: parsed.destination_port,
            new_identification: core.next_identification(),
        });
        let start = parsed.fragment_offset;
        let range = Range { start, end: start.saturating_add(carried(parsed)), last: !parsed.more_fragments };
        let met = self.table.meet(packet.now, &key, range, first);
        drop_held(core, self.table.take_dropped(), packet.ingress, DropReason::FragmentsFull, packet.now);
        match met {
            Met::Ports(ports) => {
                let facts = facts(&ports);
                egress.stage(|| stages::fragment("its ports are known"));
                packet.frame.fragment = Some(facts);
                packet.know(facts);
                packet.may_hand_over = true;
                if first.is_some() {
                    self.releasing = Some((key, facts));
                }
                way(core, tables, packet, egress)
            }
            Met::Hold if self.table.hold(&key, packet.frame.bytes()) => {
                egress.stage(|| stages::fragment("waits for the first of its packet, which has the ports"));
                Verdict::Held
            }
            Met::Hold | Met::Full => Verdict::Dropped(DropReason::FragmentsFull),
            Met::Overlap { dropped } => {
                drop_held(core, dropped, packet.ingress, DropReason::FragmentOverlap, packet.now);
                Verdict::Dropped(DropReason::FragmentOverlap)
            }
            Met::Duplicate => Verdict::Dropped(DropReason::FragmentDuplicate),
        }
    }

    /// A fragment that waited and may go, with the port that it entered through.
    pub(super) fn released(&mut self, frame: &mut Frame) -> Option<PortId> {
        let (key, facts) = self.releasing?;
        let Some(bytes) = self.table.next_held(&key) else {
            self.releasing = None;
            return None;
        };
        frame.set_packet(&bytes);
        frame.fragment = Some(facts);
        self.table.give_back(bytes);
        Some(PortId(key.ingress))
    }

    /// How many fragments wait.
    pub(super) fn held(&self) -> usize {
        self.table.held()
    }

    /// Ends what is over: fragments that waited in vain are dropped.
    pub(super) fn expire(&mut self, core: &Core, now: u64, budget: usize) {
        self.table.expire(now, budget, |count, ingress| {
            drop_held(core, count, PortId(ingress), DropReason::FragmentTimeout, now);
        });
        core.counters.fragments_held.set(self.table.held() as u64);
    }

    /// When [`Fragments::expire`] may have something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.table.next_deadline()
    }
}

/// What does not need the ports: a fragment that goes nowhere takes no room here.
fn admit(core: &Core, packet: &Packet<'_>) -> Result<(), DropReason> {
    let port = core.snapshot.port(packet.ingress).ok_or(DropReason::UnknownPort)?;
    origin::check(port, &Subject::of(packet.ingress, packet.parsed), &mut Silent)?;
    if port.kind != PortKind::Internet {
        return Ok(());
    }
    let destination = packet.parsed.destination();
    let known = core.snapshot.public_port(destination).is_some()
        || core.snapshot.instance(destination).is_some()
        || core.snapshot.pool_of(destination).is_some();
    if known { Ok(()) } else { Err(DropReason::NoPublicAddress) }
}

fn facts(ports: &Ports) -> FragmentFacts {
    FragmentFacts {
        source_port: ports.source,
        destination_port: ports.destination,
        identification: ports.new_identification,
    }
}

fn key_of(ingress: PortId, parsed: &Parsed) -> FragmentKey {
    let wide = |address| match address {
        std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::to_ipv6_mapped(&v4).to_bits(),
        std::net::IpAddr::V6(v6) => v6.to_bits(),
    };
    FragmentKey {
        source: wide(parsed.source()),
        destination: wide(parsed.destination()),
        identification: parsed.identification,
        protocol: parsed.protocol,
        ingress: ingress.0,
    }
}

/// Bytes of the packet that the fragment carries.
fn carried(parsed: &Parsed) -> u16 {
    let header = u32::from(parsed.transport.saturating_sub(parsed.network));
    u16::try_from(parsed.total.saturating_sub(header)).unwrap_or(u16::MAX)
}

/// Counts fragments that were held and are dropped.
fn drop_held(core: &Core, count: u32, ingress: PortId, reason: DropReason, now: u64) {
    core.count_drops(reason, ingress, u64::from(count));
    if core.is_logged() && count > 0 {
        core.log_packets(Event::Dropped(reason), About::Port(Some(ingress)), u64::from(count), 0, now);
    }
    let held = &core.counters.fragments_held;
    held.set(held.get().saturating_sub(u64::from(count)));
}
