//! What the control socket answers, and what it is asked: one type for each JSON object, read and written by both ends.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::telemetry::flow_record::FlowLogTotals;

/// `GET /v1/health`: the node is there and forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Always `ok`: a node that cannot forward does not answer.
    pub status: String,
    /// Generation of the snapshot in force.
    pub generation: u64,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process id of the node.
    pub pid: u32,
    /// Seconds since the node started.
    pub uptime_seconds: u64,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// The document in force.
    pub document: PathBuf,
    /// Endpoints that were switched since the document was loaded, as `network/subnet service`: true where on.
    pub switched_endpoints: BTreeMap<String, bool>,
    /// The catalogue in force, if the document names one.
    pub catalogue: Option<CatalogueStatus>,
    /// Workers that forward.
    pub workers: u16,
    /// Whether no new flows are taken.
    #[serde(default)]
    pub draining: bool,
    /// How many flows there are, and may be.
    pub flows: FlowUse,
    /// Ports with a device.
    pub ports: Vec<PortStatus>,
    /// What was recorded of flows for flow logs, and what was lost of that.
    #[serde(default)]
    pub flow_log: FlowLogTotals,
    /// What outlives the process; none for a node that leaves nothing behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateStatus>,
    /// What the node may ask of the kernel; none where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<PrivilegesStatus>,
    /// The last changes, oldest first.
    pub changes: Vec<Change>,
}

/// How many flows there are, and may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowUse {
    /// Flows of the node.
    pub used: u32,
    /// Most flows of the node.
    pub limit: u32,
    /// Most flows of one NIC.
    pub limit_per_nic: u32,
    /// While the node or a NIC has more than 80 % of what it may have: the ports with the most flows, largest first. Else
    /// none.
    pub owners: Vec<FlowOwner>,
}

/// A port and the flows that count for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowOwner {
    /// Name of the port.
    pub port: String,
    /// Its flows.
    pub flows: u32,
}

/// What the threads of a node may ask of the kernel, as the kernel says: capabilities of any of their sets but the
/// bounding one (`CAP_NET_ADMIN`), by what the threads do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivilegesStatus {
    /// Of who opens and changes devices.
    pub devices: Vec<String>,
    /// Of who answers on the control socket, and of everybody else.
    pub control: Vec<String>,
    /// Of the workers.
    pub workers: Vec<String>,
    /// Whether no thread can gain any by running a program (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether the system calls of every thread are filtered (seccomp).
    pub system_calls_filtered: bool,
}

/// What a node leaves to the next one, and what it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStatus {
    /// Where flows are saved at the end. Devices stay, too.
    pub file: PathBuf,
    /// Flows that were taken over from the process before; none where it left no file.
    pub restored: Option<RestoredStatus>,
}

/// What was taken over from the process before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredStatus {
    /// Flows that live on.
    pub flows: u64,
    /// Flows whose time was over meanwhile.
    pub expired: u64,
    /// Flows that were left out: their port is gone, or there is no room.
    pub left_out: u64,
    /// Microseconds from when the workers of the process before had stopped until those of this one had started.
    pub blackout_us: u64,
}

/// The catalogue in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueStatus {
    /// Its file.
    pub path: PathBuf,
    /// Service tags in it.
    pub tags: usize,
    /// `changeNumber` of the file; 0 where it does not say.
    pub change_number: u64,
    /// Why the file as it is now was not taken; none where it is in force.
    pub refused: Option<String>,
}

/// A port of the node that has a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Name of the port: `vm1`, `gateway`.
    pub name: String,
    /// What it is: `nic`, `gateway`, `internet`, `service`, `backbone`.
    pub kind: String,
    /// The interface's name.
    pub interface: String,
    /// The namespace that the interface is in; none: the node's own.
    pub netns: Option<String>,
    /// What the device was granted: `plain`, `offload tcp4 tcp6`.
    pub io: String,
}

/// One change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it was finished or refused, in seconds since 1970 UTC.
    pub at: u64,
    /// Who asked: `start`, `catalogue`, `uid 0 pid 4711`.
    pub who: String,
    /// What was asked for: `apply demo.toml`, `enable Microsoft.Storage on spoke/workload`.
    pub what: String,
    /// Generation in force after it.
    pub generation: u64,
    /// Why it was refused; none where it was done.
    pub refused: Option<String>,
    /// What it did; none where it was refused, and for the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<ChangeEffect>,
}

/// What a change did to routes and flows, as the history has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeEffect {
    /// How many subnets' effective routes changed.
    pub subnets: usize,
    /// The first [`ROUTES_REMEMBERED`] of them.
    pub routes: Vec<RouteChanges>,
    /// TCP flows that were closed.
    pub flows_reset: u64,
    /// Other flows that moved or ended.
    pub flows_moved: u64,
    /// Flows that live on.
    pub flows_kept: u64,
    /// False where not every worker had decided its flows anew in time: then the numbers are too low.
    pub flows_complete: bool,
}

/// Subnets whose changed routes the history keeps, for each change: a catalogue may change those of every subnet.
pub const ROUTES_REMEMBERED: usize = 20;

/// `POST` and `DELETE /v1/subnets/{network}/{subnet}/endpoints/{service}`, done or, with `dry_run`, only asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAnswer {
    /// `network/subnet`.
    pub subnet: String,
    /// The service, as Azure spells it.
    pub service: String,
    /// Whether the endpoint is on after it.
    pub enabled: bool,
    /// False where it was so before; then there is no new generation.
    pub changed: bool,
    /// True where nothing was done.
    pub dry_run: bool,
    /// Generation in force after it; for a dry run the one that was and is in force.
    pub generation: u64,
    /// Subnets whose effective routes change.
    pub routes: Vec<RouteChanges>,
    /// What becomes of flows.
    #[serde(flatten)]
    pub flows: FlowChanges,
}

/// `POST` and `DELETE /v1/drain`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// Whether no new flows are taken now.
    pub draining: bool,
    /// False where it was so before.
    pub changed: bool,
    /// Flows that there are, and go on.
    pub flows: u64,
}

/// What a change did to flows, or would do. Traces that an earlier change left do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowChanges {
    /// False where the change is done and not every worker has decided its flows anew in time: the counts are then too
    /// low, and for a while packets may still go by the old path.
    #[serde(rename = "flows_complete")]
    pub complete: bool,
    /// TCP flows that are closed because their path or source address changes.
    #[serde(rename = "flows_reset")]
    pub reset: u64,
    /// Other flows that move to another path, or end because there is none any more.
    #[serde(rename = "flows_moved")]
    pub moved: u64,
    /// Flows that live on.
    #[serde(rename = "flows_kept")]
    pub kept: u64,
    /// Flows that are closed, move or end, as they were before the change: up to
    /// [`FORESEEN_LISTED`](crate::path::redecide::FORESEEN_LISTED) of each worker.
    #[serde(rename = "flows_cut")]
    pub cut: Vec<FlowAnswer>,
}

/// `PUT /v1/document` and `PUT /v1/catalogue`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentAnswer {
    /// Generation in force after it; for a dry run the one that was and is in force.
    pub generation: u64,
    /// True where nothing was done.
    pub dry_run: bool,
    /// Subnets whose effective routes change.
    pub routes: Vec<RouteChanges>,
    /// Names of ports that come.
    pub ports_added: Vec<String>,
    /// Names of ports that go.
    pub ports_removed: Vec<String>,
    /// Names of ports whose device is changed in place: addresses and routes of its namespace.
    pub ports_changed: Vec<String>,
    /// What becomes of flows.
    #[serde(flatten)]
    pub flows: FlowChanges,
}

/// How the effective routes of one subnet change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChanges {
    /// `network/subnet`.
    pub subnet: String,
    /// Effective routes that come, one a line: source, state, prefix or name, next hop.
    pub added: Vec<String>,
    /// Effective routes that go.
    pub removed: Vec<String>,
}

/// What `GET /v1/explain` asks: one packet that is described and never sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// A NIC, or a subnet (`network/subnet`), which stands for its first NIC.
    pub from: String,
    /// An address, or a host name that the document gives to a service.
    pub to: String,
    /// `tcp`, `udp`, `icmp` or a protocol number.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Destination port of TCP and UDP.
    #[serde(default)]
    pub port: Option<u16>,
}

/// What `GET /v1/verify` asks: whether network security groups let one packet pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyQuery {
    /// Who sends. Outbound a NIC, or a subnet, which stands for its first NIC; inbound an address, a NIC or a service.
    pub from: String,
    /// Who gets it, the other way round.
    pub to: String,
    /// `inbound` or `outbound`, seen from the NIC whose groups are asked.
    pub direction: String,
    /// `tcp`, `udp`, `icmp` or a protocol number.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Destination port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Port of the NIC.
    #[serde(default)]
    pub local_port: Option<u16>,
    /// Port of the other side.
    #[serde(default)]
    pub remote_port: Option<u16>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// An error, with every mistake of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What went wrong, in one line.
    pub error: String,
    /// The mistakes of the document that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<MistakeAnswer>,
}

/// One mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MistakeAnswer {
    /// Line of the document from 1; none where the mistake has no place.
    pub line: Option<usize>,
    /// Column of the line from 1, in characters.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// `GET /v1/flows`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsAnswer {
    /// Flows that there are.
    pub total: u64,
    /// As many as were asked for.
    pub flows: Vec<FlowAnswer>,
}

/// One flow: both directions of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or the protocol's number.
    pub protocol: String,
    /// Port of the node where its first packet entered.
    pub ingress: String,
    /// Source as it entered, `address:port`, without port for protocols that have none.
    pub source: String,
    /// Destination as it entered.
    pub destination: String,
    /// Port of the node where it leaves.
    pub egress: String,
    /// Source that the next network sees.
    pub presented: String,
    /// Destination that it leads to.
    pub reached: String,
    /// Type of its next hop.
    pub next_hop_type: String,
    /// How far the conversation is: `established`.
    pub phase: String,
    /// Packets there and back.
    pub packets: [u64; 2],
    /// Bytes there and back.
    pub bytes: [u64; 2],
}

/// `GET /v1/denials`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialsAnswer {
    /// Denials that were recorded since the start.
    pub total: u64,
    /// Denials that were counted and not recorded: there were too many at once.
    pub lost: u64,
    /// The newest, as many as were asked for and are kept, the oldest of them first.
    pub denials: Vec<DenialAnswer>,
}

/// Somebody was denied something by an endpoint policy or by the firewall of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialAnswer {
    /// When it was recorded, in milliseconds since 1970.
    pub time: u64,
    /// The reason's name: `policy_denied`.
    pub reason: String,
    /// The reason in a sentence.
    pub text: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or the protocol's number.
    pub protocol: String,
    /// Port of the node where it entered.
    pub ingress: String,
    /// Source as it entered.
    pub source: String,
    /// Source address that the service sees, or would see.
    pub presented: Option<String>,
    /// The subnet whose identity the service sees: of what comes over an endpoint.
    pub identity: Option<String>,
    /// Destination.
    pub destination: String,
    /// Name of the resource, where it is known.
    pub resource: Option<String>,
    /// Its service.
    pub service: Option<String>,
    /// The name that the connection gave.
    pub name: Option<String>,
    /// Why it gave none: `encrypted_hello`.
    pub unnamed: Option<String>,
    /// The number of the error that the service gives.
    pub error: Option<u16>,
    /// The port of the resource that answered in place of the one that was wanted.
    pub answered_at: Option<u16>,
    /// The generation that it was decided under.
    pub generation: u64,
}

/// `GET /v1/counters`: sums over all workers since the start.
pub use crate::telemetry::counters::Report as Counters;
