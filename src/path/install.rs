//! The last step of a first packet: both directions of its flow are installed, with translated addresses and ports where
//! the decision asks for them, if there is room.
//!
//! A port of a pool is looked for from a random place on. With address and port-dependent mapping it is free if no flow's
//! replies would look the same; with endpoint-independent mapping it belongs to one inside socket. Which of a pool's
//! addresses a host gets depends on the host alone, until that address has no port left for it.

use std::net::IpAddr;

use super::core::Core;
use super::firewall::Admission;
use super::flow::{Family, FlowState, Installed};
use super::inspect::{self, of_sides};
use super::observer::Observer;
use super::order::{self, Decision, Question};
use super::policy::Named;
use super::redecide::{self, sides};
use super::route::{self, Reached};
use super::shared::{inside_source, mapped_destination, mapped_source, owner_of, widened};
use super::source::{Presented, paired};
use super::subject::Subject;
use super::undecided::key_of;
use super::verdict::{DropReason, Verdict};
use super::way::{Packet, begins_connection, key_of as key_of_packet};
use crate::packet::parse::{Fragment, Parsed, TransportKind, protocol};
use crate::packet::server_name::Application;
use crate::snapshot::{Filtering, Mapping, Pool, PoolId, PortId, PortKind};
use crate::table::flow::{FlowId, FlowKey, FlowTable, Refused};
use crate::table::mapping::{Inside, Outside};
use crate::table::quota::Exceeded;

/// Ports of one address that are tried for a translation before the next address is: a range that is nine tenths full
/// fails one packet in 10^11 (0.9^256), and a full one costs a packet some 10 µs.
const PORT_ATTEMPTS: u32 = 256;

/// The same over all addresses of a pool: those of a NAT gateway, which has 16 at most, get [`PORT_ATTEMPTS`] each, and
/// those of larger pools fewer.
const PICK_ATTEMPTS: usize = 4096;

/// Outside sockets that are tried for an endpoint-independent mapping, over all addresses: the search holds up other
/// workers that make mappings.
const MAPPING_ATTEMPTS: usize = 512;

/// Why a flow was not made; nothing has been made then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotMade {
    /// What becomes of the packet.
    Verdict(Verdict),
    /// There is no room for another flow, of this port or of any.
    NoRoom(PortId, Exceeded),
}

/// What a new flow takes the place of: the trace of one that moved, or nothing.
pub(super) struct Replaces<'a> {
    /// The trace, where it is in the table of the new flow.
    pub(super) id: Option<FlowId>,
    /// Whose it is, in whichever table it is: its room is the new flow's.
    pub(super) owner: Option<PortId>,
    /// Flows between the families, whose IPv4 side the replies of an IPv4 flow must not look like.
    pub(super) beyond: Option<&'a FlowTable<u128, FlowState>>,
    /// Whether it may take a room that is kept: this worker has no flow to end for it.
    pub(super) kept_room: bool,
}

/// Makes the flow that a decision asks for. A trace of the same table that it replaces ends.
///
/// # Errors
/// What becomes of the packet otherwise; nothing has been made then, and the trace is where it was.
pub(super) fn install<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    decision: &Decision,
    packet: &Packet<'_>,
    replaces: &Replaces<'_>,
    observer: &mut impl Observer,
) -> Result<FlowId, NotMade> {
    let (now, parsed) = (packet.now, &*packet.parsed);
    let Some(forward) = key_of_packet::<A>(packet.ingress, parsed) else { return dropped(DropReason::Version) };
    let mut making = Making::new(core, flows, forward, parsed, decision, replaces);
    let made = making.make(packet.may_hand_over, observer);
    let Making { core, flows, reverse, installed, inspect, answered_at, held, .. } = making;
    let result = made.and_then(|()| {
        let state = FlowState::new(parsed, &installed, now);
        insert(core, flows, (forward, reverse), state, now, replaces)
    });
    match result {
        Ok(id) => {
            if let (Some(application), TransportKind::Tcp { sequence, .. }) = (inspect, parsed.kind) {
                let start = sequence.wrapping_add(1);
                core.undecided.begin(now, key_of(&forward), installed.owner, application, start);
                core.counters.undecided.set(core.undecided.len() as u64);
            }
            if let Some(port) = answered_at {
                let sides = sides(&forward, &reverse);
                let mut denial = of_sides(&core.snapshot, &sides, DropReason::FirewallDenied, Named::NotYet);
                denial.answered_at = Some(port);
                core.settings.shared.denials.add(denial);
            }
            core.settings.shared.take_of_pool(installed.pool, &forward);
            core.counters.flows_created.add(1);
            core.counters.flows.add(1);
            if core.is_logged() {
                core.log_begin(flows, id, now);
            }
            Ok(id)
        }
        Err(why) => {
            held.give_back(core, flows, &forward, &reverse, installed.owner);
            Err(why)
        }
    }
}

/// Puts a flow into the table, in the place of the trace that it replaces.
fn insert<A: Family>(
    core: &mut Core,
    flows: &mut FlowTable<A, FlowState>,
    (forward, reverse): (FlowKey<A>, FlowKey<A>),
    state: FlowState,
    now: u64,
    replaces: &Replaces<'_>,
) -> Result<FlowId, NotMade> {
    let deadline = now + state.lifetime(&core.snapshot);
    let trace = replaces.id.and_then(|id| flows.remove(id));
    let inserted = flows.insert(forward, reverse, state, deadline, state.is_transient());
    let Some(trace) = trace else { return inserted.map_err(refused) };
    if inserted.is_err() {
        let due = trace.state.last_seen() + trace.state.lifetime(&core.snapshot);
        // It has been there: there is room for it.
        let back = flows.insert(trace.forward, trace.reverse, trace.state, due, true);
        debug_assert!(back.is_ok(), "{back:?}");
        return inserted.map_err(refused);
    }
    let shared = &core.settings.shared;
    if let Some(directory) = &shared.directory {
        for key in [trace.forward, trace.reverse].iter().filter(|key| ![forward, reverse].contains(key)) {
            directory.release(flows.hash(key), core.settings.worker);
        }
    }
    shared.quota.give_back(trace.state.owner.0);
    shared.give_back_of_pool(trace.state.pool(), &trace.forward);
    core.counters.flows.set(core.counters.flows.get().saturating_sub(1));
    inserted.map_err(refused)
}

fn refused(why: Refused) -> NotMade {
    NotMade::Verdict(Verdict::Dropped(match why {
        Refused::Full => DropReason::FlowTableFull,
        Refused::ForwardInUse(_) | Refused::ReverseInUse(_) => DropReason::FlowConflict,
    }))
}

/// What has been taken so far for a flow that is being made.
#[derive(Debug, Clone, Copy, Default)]
struct HeldSoFar {
    room: bool,
    forward: bool,
    reverse: bool,
    source: bool,
    destination: bool,
}

impl HeldSoFar {
    fn give_back<A: Family>(
        self,
        core: &Core,
        flows: &FlowTable<A, FlowState>,
        forward: &FlowKey<A>,
        reverse: &FlowKey<A>,
        owner: PortId,
    ) {
        let shared = &core.settings.shared;
        if let Some(directory) = &shared.directory {
            if self.forward {
                directory.release(flows.hash(forward), core.settings.worker);
            }
            if self.reverse {
                directory.release(flows.hash(reverse), core.settings.worker);
            }
        }
        if self.source {
            let (outside, remote) = mapped_source(reverse);
            shared.mappings.release(&outside, remote, true);
        }
        if self.destination {
            let (outside, remote) = mapped_destination(forward, reverse);
            shared.mappings.release(&outside, remote, true);
        }
        if self.room {
            shared.quota.give_back(owner.0);
        }
    }
}

/// A flow that is being made.
struct Making<'a, A> {
    core: &'a mut Core,
    flows: &'a mut FlowTable<A, FlowState>,
    forward: FlowKey<A>,
    reverse: FlowKey<A>,
    parsed: &'a Parsed,
    decision: &'a Decision,
    replaces: &'a Replaces<'a>,
    installed: Installed,
    /// The protocol in which the client has to name the resource first.
    inspect: Option<Application>,
    /// The port of the receiver that answers in place of the one that is wanted.
    answered_at: Option<u16>,
    held: HeldSoFar,
}

fn dropped<T>(reason: DropReason) -> Result<T, NotMade> {
    Err(NotMade::Verdict(Verdict::Dropped(reason)))
}

impl<'a, A: Family> Making<'a, A> {
    fn new(
        core: &'a mut Core,
        flows: &'a mut FlowTable<A, FlowState>,
        forward: FlowKey<A>,
        parsed: &'a Parsed,
        decision: &'a Decision,
        replaces: &'a Replaces<'a>,
    ) -> Self {
        let reverse = FlowKey::new(
            forward.destination,
            forward.source,
            forward.destination_port,
            forward.source_port,
            decision.egress.0,
            forward.protocol,
        );
        let installed = Installed {
            generation: core.snapshot.generation as u32,
            next_hop_type: decision.next_hop_type,
            pool: None,
            owner: PortId(forward.port),
            translated: false,
            maps_source: false,
            maps_destination: false,
            undecided: false,
            midway: false,
            from_internet: core.snapshot.port(PortId(forward.port)).is_some_and(|port| port.kind == PortKind::Internet),
        };
        Self {
            core,
            flows,
            forward,
            reverse,
            parsed,
            decision,
            replaces,
            installed,
            inspect: None,
            answered_at: None,
            held: HeldSoFar::default(),
        }
    }

    fn make(&mut self, may_hand_over: bool, observer: &mut impl Observer) -> Result<(), NotMade> {
        self.claim_forward(may_hand_over)?;
        let pool = self.reach()?;
        self.take_room()?;
        self.present()?;
        self.map_destination(pool)?;
        self.admit(observer)?;
        self.installed.translated = self.reverse.source != self.forward.destination
            || self.reverse.destination != self.forward.source
            || self.reverse.source_port != self.forward.destination_port
            || self.reverse.destination_port != self.forward.source_port;
        if !self.held.reverse {
            self.claim_reverse()?;
        }
        self.installed.midway = self.is_midway();
        Ok(())
    }

    /// Whether it may be the receiver's own connection, and goes the way that the receiver's own would.
    fn is_midway(&self) -> bool {
        if self.forward.protocol != protocol::TCP || begins_connection(self.parsed) {
            return false;
        }
        let snapshot = &self.core.snapshot;
        let sides = sides(&self.forward, &self.reverse);
        let entering = redecide::subject(&self.forward);
        let forwarded = snapshot
            .port(entering.ingress)
            .and_then(|port| route::forwarded_to(snapshot, port, &entering, sides.egress));
        forwarded.is_some() && redecide::returns(snapshot, &sides)
    }

    fn claim_forward(&mut self, may_hand_over: bool) -> Result<(), NotMade> {
        let Some(directory) = &self.core.settings.shared.directory else { return Ok(()) };
        match directory.claim(self.flows.hash(&self.forward), self.core.settings.worker) {
            Ok(()) => self.held.forward = !self.is_of_trace(&self.forward),
            // Another worker has made the flow in this moment.
            Err(owner) if may_hand_over => return Err(NotMade::Verdict(Verdict::HandOver(owner))),
            Err(_) => return dropped(DropReason::FlowConflict),
        }
        Ok(())
    }

    /// Whether a key is one of the trace's that the flow replaces: this worker has it, and keeps it.
    fn is_of_trace(&self, key: &FlowKey<A>) -> bool {
        self.flows.lookup(key).is_some_and(|(id, _)| Some(id) == self.replaces.id)
    }

    fn claim_reverse(&mut self) -> Result<(), NotMade> {
        if self.is_of_trace(&self.reverse) {
            return Ok(());
        }
        let crossing = |flows: &FlowTable<u128, FlowState>| {
            let key = key_of(&self.reverse);
            flows.lookup(&key).is_some() || self.core.owner(flows.hash(&key)).is_some()
        };
        if self.replaces.beyond.is_some_and(crossing) || self.flows.lookup(&self.reverse).is_some() {
            return dropped(DropReason::FlowConflict);
        }
        let Some(directory) = &self.core.settings.shared.directory else { return Ok(()) };
        match directory.claim(self.flows.hash(&self.reverse), self.core.settings.worker) {
            Ok(()) => self.held.reverse = true,
            Err(_) => return dropped(DropReason::FlowConflict),
        }
        Ok(())
    }

    /// Whom the destination leads to. Gives the pool whose mapping let the packet in.
    fn reach(&mut self) -> Result<Option<(Outside, Inside)>, NotMade> {
        let pool = match self.decision.reached {
            Reached::Own => return Ok(None),
            Reached::Instance(private) => {
                let Some(private) = A::from_ip(private) else { return dropped(DropReason::NoPublicAddress) };
                self.reverse.source = private;
                return Ok(None);
            }
            Reached::Mapping(pool) => pool,
        };
        // An ICMP query from outside has no port to be mapped back by: its identifier is the sender's.
        if matches!(self.parsed.kind, TransportKind::IcmpEcho { .. }) {
            return dropped(DropReason::NoMapping);
        }
        self.refuse_fragment(pool)?;
        let outside = Outside {
            address: widened(self.forward.destination),
            number: self.forward.destination_port,
            protocol: self.forward.protocol,
        };
        let mappings = &self.core.settings.shared.mappings;
        let Some(inside) = mappings.admits(&outside) else { return dropped(DropReason::NoMapping) };
        // Whom address-dependent filtering lets in is known once the source is.
        let snapshot = &self.core.snapshot;
        let admitted = snapshot.pool(pool).is_some_and(|pool| pool.filtering != Filtering::AddressAndPortDependent);
        let (port, private) = (PortId(inside.port), u128::to_ip(inside.address));
        if !admitted || !snapshot.serves(pool, port, private) {
            return dropped(DropReason::NoMapping);
        }
        if inside.port == self.forward.port {
            return dropped(DropReason::Loop);
        }
        let Some(address) = A::from_ip(private) else { return dropped(DropReason::NoMapping) };
        let arriving = Subject { destination: private, ..self.entering() };
        let entered = snapshot.port(PortId(self.forward.port));
        if entered.is_some_and(|entered| route::bypasses_endpoint(snapshot, entered, &arriving, port)) {
            return dropped(DropReason::EndpointBypassed);
        }
        self.reverse.source = address;
        self.reverse.source_port = inside.number;
        self.reverse.port = inside.port;
        Ok(Some((outside, inside)))
    }

    /// The checksum of SCTP covers all fragments: one alone cannot be given another port.
    fn refuse_fragment(&self, pool: PoolId) -> Result<(), NotMade> {
        let whole_only = self.core.snapshot.pool(pool).is_some_and(|pool| pool.tcp_udp_only);
        let fragment = self.parsed.fragment != Fragment::None;
        if fragment && (whole_only || self.parsed.protocol == protocol::SCTP) {
            return dropped(DropReason::FragmentNotTranslatable);
        }
        Ok(())
    }

    /// Room for one more flow of its NIC.
    fn take_room(&mut self) -> Result<(), NotMade> {
        let owner = owner_of(&self.core.snapshot, &self.forward, &self.reverse);
        self.installed.owner = owner;
        let shared = &self.core.settings.shared;
        let taken = if self.replaces.owner == Some(owner) {
            // The trace gives its own back once the flow is there.
            shared.quota.take(owner.0, u32::MAX, u32::MAX)
        } else if self.replaces.kept_room {
            shared.take_kept_room(&self.core.snapshot, owner.0)
        } else {
            shared.take_room(&self.core.snapshot, owner.0)
        };
        taken.map_err(|exceeded| NotMade::NoRoom(owner, exceeded))?;
        self.held.room = true;
        Ok(())
    }

    /// Which source the next network sees.
    fn present(&mut self) -> Result<(), NotMade> {
        match self.decision.presented {
            Presented::Own => {}
            Presented::OneToOne(address) => {
                let Some(address) = A::from_ip(address) else { return dropped(DropReason::NoSourceAddress) };
                self.reverse.destination = address;
            }
            Presented::Identity6 { source, destination } => {
                let (Some(source), Some(destination)) = (A::from_ip(source.into()), A::from_ip(destination.into()))
                else {
                    return dropped(DropReason::Untranslatable);
                };
                self.reverse.destination = source;
                self.reverse.source = destination;
                // Each family has a number of its own for ICMP (RFC 7915 section 4.2).
                if self.forward.protocol == protocol::ICMP {
                    self.reverse.protocol = protocol::ICMPV6;
                }
            }
            Presented::Pool(id) => {
                let snapshot = self.core.snapshot.clone();
                let Some(pool) = snapshot.pool(id) else { return dropped(DropReason::NoSourceAddress) };
                self.installed.pool = Some(id);
                self.refuse_fragment(id)?;
                // An ICMP query has an identifier, though it may be 0.
                let echo = matches!(self.parsed.kind, TransportKind::IcmpEcho { .. });
                match pool.mapping {
                    _ if !echo && self.forward.source_port == 0 && self.forward.destination_port == 0 => {
                        self.without_port(pool)?;
                    }
                    Mapping::AddressAndPortDependent => self.pick_port(id, pool)?,
                    Mapping::EndpointIndependent => self.map_source(id, pool)?,
                }
            }
        }
        Ok(())
    }

    /// Whether the receiver takes what arrives, where that was not known before.
    fn admit(&mut self, observer: &mut impl Observer) -> Result<(), NotMade> {
        let decision = self.decision;
        let late = matches!((decision.reached, decision.presented), (Reached::Mapping(_), _) | (_, Presented::Pool(_)));
        let arrival = if late { self.late_arrival(observer)? } else { decision.arrival };
        self.inspect = decision.inspect.or(order::inspected(arrival.ruling));
        if self.inspect.is_some() {
            if !inspect::make_room(self.core, self.installed.owner) {
                return dropped(DropReason::UndecidedFull);
            }
            self.installed.undecided = true;
        }
        if let Admission::Answered(port) = arrival.admission {
            self.reverse.source_port = port;
            self.answered_at = Some(port);
        }
        Ok(())
    }

    /// The packet as it entered.
    fn entering(&self) -> Subject {
        Subject {
            ingress: PortId(self.forward.port),
            source: self.forward.source.to_ip(),
            destination: self.forward.destination.to_ip(),
            protocol: self.forward.protocol,
            source_port: self.forward.source_port,
            destination_port: self.forward.destination_port,
        }
    }

    fn late_arrival(&self, observer: &mut impl Observer) -> Result<order::Arrival, NotMade> {
        let arrival = Subject {
            ingress: PortId(self.forward.port),
            source: self.reverse.destination.to_ip(),
            destination: self.reverse.source.to_ip(),
            protocol: self.forward.protocol,
            source_port: self.reverse.destination_port,
            destination_port: self.reverse.source_port,
        };
        let entering = self.entering();
        let (snapshot, egress) = (&self.core.snapshot, PortId(self.reverse.port));
        let admitted = order::admit(snapshot, &entering, self.decision, egress, &arrival, Question::NEW, observer);
        admitted.or_else(dropped)
    }

    /// A protocol without ports gets an address, and as many flows to one destination as the pool has addresses.
    fn without_port(&mut self, pool: &Pool) -> Result<(), NotMade> {
        for step in 0.. {
            let Some(address) = self.pool_address(pool, step) else { break };
            let mut candidate = self.reverse;
            candidate.destination = address;
            if self.try_reverse(candidate) {
                return Ok(());
            }
        }
        dropped(DropReason::FlowConflict)
    }

    /// A port that no other flow towards this destination uses.
    fn pick_port(&mut self, id: PoolId, pool: &Pool) -> Result<(), NotMade> {
        let echo = matches!(self.parsed.kind, TransportKind::IcmpEcho { .. });
        let ports = attempts(PICK_ATTEMPTS, addresses(pool, self.forward.source.to_ip()));
        for step in 0.. {
            let Some(address) = self.pool_address(pool, step) else { break };
            let random = self.core.random.u64(..);
            let mut candidate = self.reverse;
            candidate.destination = address;
            let picked =
                pool.ports.pick(random, ports, |port| self.try_reverse(with_translated_port(candidate, port, echo)));
            if picked.is_some() {
                return Ok(());
            }
        }
        self.core.settings.shared.exhausted(id, &self.forward);
        dropped(DropReason::NoFreePort)
    }

    /// The one outside socket of the inside one.
    fn map_source(&mut self, id: PoolId, pool: &Pool) -> Result<(), NotMade> {
        let echo = matches!(self.parsed.kind, TransportKind::IcmpEcho { .. });
        let source = self.forward.source.to_ip();
        let protocol = self.forward.protocol;
        let random = &mut self.core.random;
        let ports = attempts(MAPPING_ATTEMPTS, addresses(pool, source));
        let candidates = (0..addresses(pool, source)).flat_map(|step| {
            let address = paired(pool, source, step).and_then(u128::from_ip);
            let (start, count) = (random.u32(..), pool.ports.count());
            let numbers = (0..count.min(ports)).filter_map(move |place| {
                let offset = start.wrapping_add(place).checked_rem(count)?;
                u16::try_from(u32::from(pool.ports.first) + offset).ok()
            });
            numbers.filter_map(move |number| Some(Outside { address: address?, number, protocol }))
        });
        let (_, remote) = mapped_source(&self.reverse);
        let inside = inside_source(&self.forward, id);
        let shared = &self.core.settings.shared;
        let Some(outside) = shared.mappings.acquire(&inside, remote, candidates) else {
            shared.exhausted(id, &self.forward);
            return dropped(DropReason::NoFreePort);
        };
        let Some(address) = A::from_ip(u128::to_ip(outside.address)) else {
            return dropped(DropReason::NoSourceAddress);
        };
        self.reverse.destination = address;
        self.reverse = with_translated_port(self.reverse, outside.number, echo);
        self.held.source = true;
        self.installed.maps_source = true;
        Ok(())
    }

    /// Keeps the mapping that the packet came in by.
    fn map_destination(&mut self, reached: Option<(Outside, Inside)>) -> Result<(), NotMade> {
        let Some((outside, inside)) = reached else { return Ok(()) };
        let (_, remote) = mapped_destination(&self.forward, &self.reverse);
        let mappings = &self.core.settings.shared.mappings;
        let known = self.core.snapshot.pool_of(u128::to_ip(outside.address)).and_then(|id| self.core.snapshot.pool(id));
        let address_dependent = known.is_some_and(|pool| pool.filtering == Filtering::AddressDependent);
        if address_dependent && !mappings.knows_address(&outside, remote) {
            return dropped(DropReason::NoMapping);
        }
        // Another worker may have ended the mapping meanwhile.
        if mappings.admits(&outside) != Some(inside) || !mappings.acquire_exact(&inside, &outside, remote) {
            return dropped(DropReason::NoMapping);
        }
        self.held.destination = true;
        self.installed.maps_destination = true;
        if self.installed.pool.is_none() {
            self.installed.pool = self.core.snapshot.pool_of(u128::to_ip(outside.address));
        }
        Ok(())
    }

    fn pool_address(&self, pool: &Pool, step: usize) -> Option<A> {
        let source = self.forward.source.to_ip();
        if step < addresses(pool, source) { paired(pool, source, step).and_then(A::from_ip) } else { None }
    }

    /// Takes a key for the replies, if no flow of any worker has it.
    fn try_reverse(&mut self, candidate: FlowKey<A>) -> bool {
        if self.is_of_trace(&candidate) {
            self.reverse = candidate;
            return true;
        }
        let hash = self.flows.hash(&candidate);
        if self.flows.lookup_hashed(hash, &candidate).is_some() {
            return false;
        }
        if let Some(directory) = &self.core.settings.shared.directory {
            // This worker may own the hash already: by a key that collides, or by the flow's own other direction.
            if directory.owner(hash).is_some() || directory.claim(hash, self.core.settings.worker).is_err() {
                return false;
            }
            self.held.reverse = true;
        }
        self.reverse = candidate;
        true
    }
}

/// How many addresses of a source's family a pool has.
fn addresses(pool: &Pool, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(_) => pool.v4.len(),
        IpAddr::V6(_) => pool.v6.len(),
    }
}

/// Ports to try of each address, of so many in all.
fn attempts(all: usize, addresses: usize) -> u32 {
    let each = all.checked_div(addresses).unwrap_or_default().max(1);
    u32::try_from(each).map_or(PORT_ATTEMPTS, |each| each.min(PORT_ATTEMPTS))
}

/// The key of replies with another translated port; an ICMP identifier is on both sides.
fn with_translated_port<A: Family>(mut reverse: FlowKey<A>, port: u16, echo: bool) -> FlowKey<A> {
    reverse.destination_port = port;
    if echo {
        reverse.source_port = port;
    }
    reverse
}
