//! A record of a flow log as people and tools read it: what a worker recorded, with what its snapshot says of it. That is what
//! Azure's format has no room for, too: the path, the source that the service saw, the reason, the name, the generation.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::path::firewall::{self, Caller, Why};
use crate::path::flow::Phase;
use crate::path::kind::PathKind;
use crate::path::nsg::{self, Direction};
use crate::path::observer::Silent;
use crate::path::policy::{self, Named};
use crate::path::record::{About, Ending, Event, Record};
use crate::path::redecide::{self, Sides};
use crate::path::route;
use crate::path::subject::Subject;
use crate::path::verdict::DropReason;
use crate::plan::explain::protocol_name;
use crate::snapshot::{Access, NextHopType, PortEntry, PortId, PortKind, Snapshot, SourceAction};

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEvent {
    /// A flow was made.
    Begin,
    /// It had its first answer.
    Reply,
    /// It goes on.
    Continue,
    /// It has ended.
    End,
    /// A packet was not forwarded: dropped, or answered.
    Denied,
    /// An ICMP error went back along a flow, which does not count it.
    Related,
    /// Packets that flows have counted could not leave.
    Unsent,
}

impl FlowEvent {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Reply => "reply",
            Self::Continue => "continue",
            Self::End => "end",
            Self::Denied => "denied",
            Self::Related => "related",
            Self::Unsent => "unsent",
        }
    }
}

/// One end of a flow on one side of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Its address.
    pub address: IpAddr,
    /// Its port, or the identifier of an ICMP query; 0 where there is none.
    pub port: u16,
}

/// What a security group said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSeen {
    /// The group.
    pub group: String,
    /// `securityRules/allow-web`, `defaultSecurityRules/AllowVnetInBound`; none where no rule says anything.
    pub rule: Option<String>,
    /// Whether it lets the packet pass.
    pub allowed: bool,
}

/// The subnet of a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSeen {
    /// Its virtual network.
    pub network: String,
    /// Its name in it.
    pub subnet: String,
}

/// What was recorded, and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogTotals {
    /// Records taken.
    pub records: u64,
    /// Records that found no room in the workers' queues.
    pub lost_records: u64,
    /// Packets that these told of.
    pub lost_packets: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Tuples that were to be written to a file, and found no room while it could not be, or at the end.
    pub unwritten: u64,
    /// Data records sent to the collector; over TCP, that its host has acknowledged.
    pub exported: u64,
    /// Those that are known not to have reached it.
    pub not_exported: u64,
}

/// One record of a flow log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// When, in milliseconds since 1970 (UTC).
    pub time: u64,
    /// What it tells.
    pub event: FlowEvent,
    /// Why a flow ended, or a packet did not leave.
    pub reason: Option<String>,
    /// IP protocol number; none where nothing is known of the packet.
    pub protocol: Option<u8>,
    /// Its name.
    pub protocol_name: Option<String>,
    /// The port that the first packet entered through.
    pub ingress: Option<String>,
    /// Its number: what IPFIX calls the ingress interface.
    pub ingress_port: Option<u16>,
    /// Its source there.
    pub source: Option<Socket>,
    /// Its destination there.
    pub destination: Option<Socket>,
    /// The port that it left through.
    pub egress: Option<String>,
    /// Its number.
    pub egress_port: Option<u16>,
    /// The source that the next network, or the service, sees; of who is denied the one that it would see, with port 0 where
    /// a pool would have picked it.
    pub presented: Option<Socket>,
    /// The destination that it led to.
    pub reached: Option<Socket>,
    /// The path.
    pub path: Option<PathKind>,
    /// Type of the next hop, as Azure spells it.
    pub next_hop_type: Option<String>,
    /// The service whose endpoint the flow takes.
    pub endpoint: Option<String>,
    /// Packets since the record before, from the sender of the first packet and back.
    pub packets: [u64; 2],
    /// Their bytes.
    pub bytes: [u64; 2],
    /// When the flow began, in milliseconds since 1970.
    pub began: u64,
    /// How long the first answer took, in microseconds.
    pub round_trip_us: Option<u32>,
    /// How far the flow is.
    pub phase: Option<String>,
    /// What the security groups of the sending NIC said.
    pub outbound: Option<RuleSeen>,
    /// What those of the receiving NIC said.
    pub inbound: Option<RuleSeen>,
    /// The subnet of the sending NIC.
    pub from_subnet: Option<SubnetSeen>,
    /// The subnet of the receiving NIC.
    pub to_subnet: Option<SubnetSeen>,
    /// The resource of a service that it is for, where that is known.
    pub resource: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The identity that the service sees, over an endpoint: `network/subnet`.
    pub identity: Option<String>,
    /// Why the resource's firewall, or the endpoint policy, admits or denies the caller.
    pub admission: Option<String>,
    /// Whether it admits it.
    pub admitted: Option<bool>,
    /// The name that the connection gave, where a policy or a shared front end read it.
    pub server_name: Option<String>,
    /// The generation that it was decided under.
    pub generation: u64,
    /// The worker.
    pub worker: u16,
}

impl FlowRecord {
    /// Puts a record into words. `epoch` is what the workers' clock showed nothing at, in milliseconds since 1970.
    pub fn new(record: &Record, epoch: u64) -> Self {
        let snapshot = &*record.snapshot;
        let (event, reason) = match record.event {
            Event::Begin => (FlowEvent::Begin, None),
            Event::Reply => (FlowEvent::Reply, None),
            Event::Continue => (FlowEvent::Continue, None),
            Event::End(ending) => (FlowEvent::End, Some(ending.name())),
            Event::Answered(answer) => (FlowEvent::Denied, Some(answer.name())),
            Event::Dropped(reason) => (FlowEvent::Denied, Some(reason.name())),
            Event::Related => (FlowEvent::Related, None),
            Event::Unsent(reason) => (FlowEvent::Unsent, Some(reason.name())),
        };
        let mut told = Self {
            time: epoch.saturating_add(record.at),
            event,
            reason: reason.map(str::to_owned),
            protocol: None,
            protocol_name: None,
            ingress: None,
            ingress_port: None,
            source: None,
            destination: None,
            egress: None,
            egress_port: None,
            presented: None,
            reached: None,
            path: None,
            next_hop_type: record.next_hop_type.map(|hop| hop.name().to_owned()),
            endpoint: None,
            packets: record.packets,
            bytes: record.bytes,
            began: epoch.wrapping_add(record.began),
            round_trip_us: record.round_trip,
            phase: record.phase.map(Phase::name).map(str::to_owned),
            outbound: None,
            inbound: None,
            from_subnet: None,
            to_subnet: None,
            resource: None,
            service: None,
            identity: None,
            admission: None,
            admitted: None,
            server_name: record.name.as_deref().map(str::to_owned),
            generation: snapshot.generation,
            worker: record.worker,
        };
        match &record.about {
            About::Flow(sides) => told.flow(snapshot, sides, record),
            About::Packet(subject) => told.packet(snapshot, subject, record),
            About::Port(port) => {
                told.ingress_port = port.map(|port| port.0);
                told.ingress = port.and_then(|port| snapshot.port(port)).map(|port| port.name.clone());
            }
        }
        told
    }

    fn entering(&mut self, snapshot: &Snapshot, subject: &Subject) {
        let port = snapshot.port(subject.ingress);
        self.protocol = Some(subject.protocol);
        self.protocol_name = Some(protocol_name(subject.protocol));
        self.ingress = port.map(|port| port.name.clone());
        self.ingress_port = port.map(|_| subject.ingress.0);
        self.source = Some(Socket { address: subject.source, port: subject.source_port });
        self.destination = Some(Socket { address: subject.destination, port: subject.destination_port });
        if let Some(port) = port.filter(|port| port.kind == PortKind::Nic) {
            self.from_subnet = subnet_of(snapshot, port);
            self.outbound = said(snapshot, port, Direction::Outbound, subject);
        }
    }

    fn leaving(&mut self, snapshot: &Snapshot, egress: PortId, arriving: &Subject) {
        self.egress = snapshot.port(egress).map(|port| port.name.clone());
        self.egress_port = self.egress.as_ref().map(|_| egress.0);
        if let Some(port) = snapshot.port(egress).filter(|port| port.kind == PortKind::Nic) {
            self.to_subnet = subnet_of(snapshot, port);
            self.inbound = said(snapshot, port, Direction::Inbound, arriving);
        }
    }

    fn flow(&mut self, snapshot: &Snapshot, sides: &Sides, record: &Record) {
        let (entering, arriving) = (sides.entering(), sides.arrival());
        self.entering(snapshot, &entering);
        self.leaving(snapshot, sides.egress, &arriving);
        self.presented = Some(Socket { address: arriving.source, port: arriving.source_port });
        self.reached = Some(Socket { address: arriving.destination, port: arriving.destination_port });
        self.path = record.next_hop_type.map(PathKind::of);
        let endpoint = (record.next_hop_type == Some(NextHopType::VirtualNetworkServiceEndpoint))
            .then(|| redecide::way_of(snapshot, sides))
            .flatten();
        self.service(snapshot, &entering, endpoint, Some(sides.presented.0), record.named);
        if let Event::End(Ending::Denied(reason)) = record.event {
            self.denied(snapshot, entering.ingress, endpoint, reason);
        }
    }

    fn packet(&mut self, snapshot: &Snapshot, subject: &Subject, record: &Record) {
        self.entering(snapshot, subject);
        let Some((chosen, endpoint)) = way(snapshot, subject) else { return };
        if record.event == Event::Dropped(DropReason::NsgInboundDenied) {
            self.leaving(snapshot, chosen.egress, subject);
        }
        // Whoever is denied by its source, or before there is a route, has no path.
        let Some(reason) = self.door() else { return };
        self.next_hop_type = Some(chosen.next_hop_type.name().to_owned());
        self.presented = record.presented.map(|(address, port)| Socket { address, port });
        self.service(snapshot, subject, endpoint, self.presented.map(|presented| presented.address), record.named);
        self.denied(snapshot, subject.ingress, endpoint, reason);
    }

    /// Why a packet ended at the door of a service, if it did. An answer is named as the reason that it stands for.
    fn door(&self) -> Option<DropReason> {
        let reasons = [
            DropReason::FirewallDenied,
            DropReason::PolicyDenied,
            DropReason::PolicyUnidentified,
            DropReason::UndecidedInconsistent,
            DropReason::SecondRequest,
        ];
        reasons.into_iter().find(|reason| self.reason.as_deref() == Some(reason.name()))
    }

    /// By which rule a caller was denied: what the firewall says has been told.
    fn denied(&mut self, snapshot: &Snapshot, ingress: PortId, endpoint: Option<u16>, reason: DropReason) {
        if reason == DropReason::FirewallDenied {
            return;
        }
        let policy = snapshot.port(ingress).and_then(|port| policy::of(snapshot, port, endpoint));
        let name = policy.map_or("?", |(_, policy)| policy.name.as_str());
        self.admitted = Some(false);
        self.admission = Some(match reason {
            DropReason::PolicyDenied => format!("the endpoint policy {name} does not list the resource"),
            DropReason::PolicyUnidentified => {
                format!("the endpoint policy {name} lets nothing pass of which the resource is not known")
            }
            reason => reason.text().trim_end_matches('.').to_owned(),
        });
    }

    /// What a service sees of a caller, and says to it.
    fn service(
        &mut self,
        snapshot: &Snapshot,
        subject: &Subject,
        endpoint: Option<u16>,
        presented: Option<IpAddr>,
        named: Named,
    ) {
        let Some(port) = snapshot.port(subject.ingress) else { return };
        let scope = endpoint.and_then(|endpoint| port.endpoint_scopes.get(usize::from(endpoint)));
        self.endpoint = scope.map(|scope| scope.service.clone());
        let resource = policy::resource_of(snapshot, subject.destination, named);
        let Some(resource) = resource.and_then(|resource| snapshot.resources.get(resource)) else { return };
        self.resource = Some(resource.name.clone());
        self.service = Some(resource.service.clone());
        let caller = Caller { ingress: subject.ingress, port, endpoint, source: presented.unwrap_or(subject.source) };
        let identity = caller.identity(&resource.location);
        let known = identity.and_then(|key| snapshot.identity(key));
        self.identity = known.map(|known| format!("{}/{}", known.network, known.subnet));
        let (admitted, why) = firewall::decide(resource, &caller);
        // Where nothing translates yet, which address the firewall would see is not known.
        if presented.is_some() || endpoint.is_some() {
            self.admitted = Some(admitted);
            let rule = self.identity.as_deref().filter(|_| why == Why::VirtualNetworkRule);
            self.admission = Some(match rule {
                Some(rule) => format!("{} ({rule})", why.text()),
                None => why.text().to_owned(),
            });
        }
    }
}

/// How a packet would go on, and over which endpoint.
fn way(snapshot: &Snapshot, subject: &Subject) -> Option<(route::Chosen, Option<u16>)> {
    let port = snapshot.port(subject.ingress)?;
    let chosen = route::choose(snapshot, port, subject, &mut Silent).ok()?;
    let endpoint = match chosen.source {
        SourceAction::Endpoint(endpoint) => Some(endpoint),
        SourceAction::Keep | SourceAction::Outbound => None,
    };
    Some((chosen, endpoint))
}

/// What the groups of a NIC say: the one that denies, or the last.
fn said(snapshot: &Snapshot, port: &PortEntry, direction: Direction, subject: &Subject) -> Option<RuleSeen> {
    let mut last = None;
    for (_, group) in nsg::asked(port, direction) {
        let Some(ruling) = nsg::decide(snapshot, group, direction, subject) else { continue };
        let allowed = ruling.access == Access::Allow;
        let rule = ruling.rule.map(|rule| rule.name.clone());
        last = Some(RuleSeen { group: ruling.nsg.name.clone(), rule, allowed });
        if !allowed {
            break;
        }
    }
    last
}

fn subnet_of(snapshot: &Snapshot, port: &PortEntry) -> Option<SubnetSeen> {
    let known = snapshot.identity(port.identity?)?;
    Some(SubnetSeen { network: known.network.clone(), subnet: known.subnet.clone() })
}
