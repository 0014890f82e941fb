//! Flow logs in the format of Azure's virtual network flow logs, version 4 (Azure, "Virtual network flow logs"): one file an hour
//! and NIC, `PT1H.json`, in Azure's folders. A reader of Azure's files reads these.
//!
//! ```text
//! insights-logs-flowlogflowevent/flowLogResourceID=/<subscription>_NETWORKWATCHERRG/NETWORKWATCHER_<REGION>_<LOG>/
//!     y=2026/m=06/d=09/h=07/m=00/macAddress=<MAC>/PT1H.json
//! ```
//!
//! A flow between two NICs is in the files of both: outbound where it was sent, inbound where it came in, each with the addresses
//! that the NIC sees. What Azure has and Sidestep has not is made from names, the same every time: GUIDs, MAC addresses and the
//! subscription. Packets are those of the ports: a super-packet is one.
//!
//! A file is whole JSON after every write: what ends it is written anew behind each record. A write that fails leaves the file as
//! it was. A file that a crash has cut is cut back to its last whole record when it is written to again.
//!
//! Between two writes tuples are kept as the text that they will be, and so are bounded by its bytes.

mod file;
mod folders;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::Serialize;
use time::OffsetDateTime;

use super::decimal::{push_address, push_number};
use super::flow_record::{FlowEvent, FlowRecord, RuleSeen, Socket, SubnetSeen};
use crate::path::record::{About, Event, Record};
use crate::path::verdict::DropReason;
use crate::snapshot::{PortId, PortKind};
use file::append;
use folders::{BELOW, Deleting, RESOURCE, path_of};

/// What a record says where no group or rule decided.
const UNSPECIFIED: &str = "unspecified";

/// The subscription that everything is in.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

/// The resource group of the networks.
const RESOURCE_GROUP: &str = "sidestep";

/// Bytes of tuples that should be written before they are due, and that there may be where they cannot be: a tuple has about
/// eighty.
const MANY_WAITING: usize = 16 << 20;
const MOST_WAITING: usize = 64 << 20;

/// What flows are logged, and together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A virtual network: all of its NICs.
    Network(String),
    /// A subnet: `network/subnet`.
    Subnet(String, String),
    /// A NIC.
    Nic(String),
}

impl Target {
    /// A target as the command line names it: `network/subnet`, or the name of a network or NIC.
    pub fn named(name: &str, is_network: impl Fn(&str) -> bool) -> Self {
        match name.split_once('/') {
            Some((network, subnet)) => Self::Subnet(network.to_owned(), subnet.to_owned()),
            None if is_network(name) => Self::Network(name.to_owned()),
            None => Self::Nic(name.to_owned()),
        }
    }

    /// Its resource id, as Azure writes them.
    fn resource_id(&self) -> String {
        let group =
            format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.Network");
        match self {
            Self::Network(network) => format!("{group}/virtualNetworks/{network}"),
            Self::Subnet(network, subnet) => format!("{group}/virtualNetworks/{network}/subnets/{subnet}"),
            Self::Nic(nic) => format!("{group}/networkInterfaces/{nic}"),
        }
    }

    /// The name of its flow log.
    fn log_name(&self) -> String {
        let name = match self {
            Self::Network(network) => network.clone(),
            Self::Subnet(network, subnet) => format!("{network}-{subnet}"),
            Self::Nic(nic) => nic.clone(),
        };
        // Names of networks may have what paths may not.
        let safe = |byte: char| if byte.is_ascii_alphanumeric() || "-_.".contains(byte) { byte } else { '_' };
        format!("{}-FLOWLOG", name.chars().map(safe).collect::<String>().to_uppercase())
    }
}

/// What a record of a file begins with, in the order of Azure's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileRecord<'a> {
    time: String,
    flow_log_version: u8,
    #[serde(rename = "flowLogGUID")]
    flow_log_guid: String,
    mac_address: &'a str,
    category: &'static str,
    #[serde(rename = "flowLogResourceID")]
    flow_log_resource_id: String,
    #[serde(rename = "targetResourceID")]
    target_resource_id: String,
    operation_name: &'static str,
}

/// Files of flow logs in a folder.
#[derive(Debug)]
pub struct VnetFlowLog {
    folder: PathBuf,
    /// None: every subnet has a log of its own.
    targets: Vec<Target>,
    /// Regions of virtual networks, of those that are gone, too: what they had is still to be written.
    regions: HashMap<String, String>,
    /// Days after which files are deleted; none: never.
    retention: Option<u32>,
    /// NICs by their names: one for each subnet that a NIC was in.
    nics: HashMap<String, Vec<Nic>>,
    /// Bytes and tuples that wait to be written.
    bytes: usize,
    tuples: u64,
    unwritten: u64,
}

/// A NIC in a subnet, and what waits to be written of it.
#[derive(Debug)]
struct Nic {
    network: String,
    subnet: String,
    /// The log that it is in; none where it is in none.
    target: Option<Target>,
    mac_address: String,
    hours: BTreeMap<i64, Vec<Group>>,
}

/// Tuples of one hour by one rule.
#[derive(Debug)]
struct Group {
    /// The security group, and its rule; none where none decided.
    said: Option<(String, Option<String>)>,
    /// What Azure's fields say of it.
    acl: String,
    rule: String,
    /// Tuples as JSON, with commas between them. Nothing in one needs to be escaped.
    text: Vec<u8>,
    tuples: u64,
}

impl Group {
    fn is_of(&self, said: Option<&RuleSeen>) -> bool {
        match (&self.said, said) {
            (Some((group, rule)), Some(said)) => *group == said.group && *rule == said.rule,
            (None, None) => true,
            _ => false,
        }
    }

    fn new(said: Option<&RuleSeen>) -> Self {
        let rule = said.and_then(|said| said.rule.as_deref());
        Self {
            said: said.map(|said| (said.group.clone(), said.rule.clone())),
            acl: said.map_or_else(|| UNSPECIFIED.to_owned(), |said| guid(&said.group)),
            rule: rule.map_or_else(|| UNSPECIFIED.to_owned(), rule_name),
            text: Vec::new(),
            tuples: 0,
        }
    }
}

/// One side of a flow: where it entered, or where it left.
struct Side<'r> {
    nic: &'r str,
    subnet: &'r SubnetSeen,
    rule: Option<&'r RuleSeen>,
    /// `O` or `I`.
    direction: u8,
    sockets: (Option<Socket>, Option<Socket>),
}

/// The state of a flow that a record tells; none where it tells no state that Azure's logs have.
fn state(event: FlowEvent) -> Option<u8> {
    match event {
        FlowEvent::Begin => Some(b'B'),
        FlowEvent::Continue => Some(b'C'),
        FlowEvent::End => Some(b'E'),
        FlowEvent::Denied => Some(b'D'),
        FlowEvent::Reply | FlowEvent::Related | FlowEvent::Unsent => None,
    }
}

/// The sides of a record that are NICs, and so have a tuple each.
fn sides(record: &FlowRecord) -> impl Iterator<Item = Side<'_>> {
    let of = (record.source, record.destination);
    let out = record.ingress.as_ref().zip(record.from_subnet.as_ref()).map(|(nic, subnet)| Side {
        nic,
        subnet,
        rule: record.outbound.as_ref(),
        direction: b'O',
        sockets: of,
    });
    let arriving = if record.event == FlowEvent::Denied { of } else { (record.presented, record.reached) };
    let within = record.egress.as_ref().zip(record.to_subnet.as_ref()).map(|(nic, subnet)| Side {
        nic,
        subnet,
        rule: record.inbound.as_ref(),
        direction: b'I',
        sockets: arriving,
    });
    out.into_iter().chain(within).filter(|side| side.sockets.0.is_some() && side.sockets.1.is_some())
}

impl VnetFlowLog {
    /// Files below a folder, for these targets; of none, a log for every subnet. They are deleted when they are older than
    /// some days, if that is said.
    pub fn new(folder: PathBuf, targets: Vec<Target>, retention: Option<u32>) -> Self {
        Self {
            folder,
            targets,
            regions: HashMap::new(),
            retention,
            nics: HashMap::new(),
            bytes: 0,
            tuples: 0,
            unwritten: 0,
        }
    }

    /// Finds out whether files can be written below the folder, which is made.
    ///
    /// # Errors
    /// Why not, with the folder.
    pub fn check(&self) -> Result<(), FlowLogError> {
        let path = self.folder.join(BELOW);
        let failed = |source: io::Error| FlowLogError { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        let probe = path.join(format!(".writable-{}", std::process::id()));
        fs::write(&probe, b"?").and_then(|()| fs::remove_file(&probe)).map_err(failed)
    }

    /// Tells the regions of virtual networks, by name. Those that were told before are kept.
    pub fn add_regions(&mut self, regions: HashMap<String, String>) {
        self.regions.extend(regions);
    }

    /// Takes a record in. It is in the files after [`VnetFlowLog::flush`]; what finds no room is counted as unwritten.
    pub fn add(&mut self, record: &FlowRecord) {
        let Some(state) = state(record.event) else { return };
        for side in sides(record) {
            self.tuple(record, state, &side);
        }
    }

    fn tuple(&mut self, record: &FlowRecord, state: u8, side: &Side<'_>) {
        let (Some(source), Some(destination)) = side.sockets else { return };
        if !self.nics.contains_key(side.nic) {
            self.nics.insert(side.nic.to_owned(), Vec::new());
        }
        let Some(nics) = self.nics.get_mut(side.nic) else { return };
        let is_it = |nic: &Nic| nic.network == side.subnet.network && nic.subnet == side.subnet.subnet;
        let place = nics.iter().position(is_it).unwrap_or_else(|| {
            nics.push(Nic {
                network: side.subnet.network.clone(),
                subnet: side.subnet.subnet.clone(),
                target: target(&self.targets, side.nic, side.subnet),
                mac_address: mac_address(side.nic),
                hours: BTreeMap::new(),
            });
            nics.len() - 1
        });
        let nic = &mut nics[place];
        if nic.target.is_none() {
            return;
        }
        if self.bytes >= MOST_WAITING {
            self.unwritten += 1;
            return;
        }
        let hour = i64::try_from(record.time / 3_600_000).unwrap_or_default();
        let groups = nic.hours.entry(hour).or_default();
        // What a group allows or denies is told with its rule; what was denied otherwise has none.
        let said = side.rule.filter(|rule| (state == b'D') != rule.allowed);
        let place = groups.iter().position(|group| group.is_of(said)).unwrap_or_else(|| {
            groups.push(Group::new(said));
            groups.len() - 1
        });
        let group = &mut groups[place];
        let before = group.text.len();
        let counted = if state == b'D' { ([0; 2], [0; 2]) } else { (record.packets, record.bytes) };
        let ([sent, received], [sent_bytes, received_bytes]) = counted;
        let protocol = record.protocol.unwrap_or_default();
        let (source_port, destination_port, direction) = (source.port, destination.port, side.direction);
        // An IPv4 address that a flow between the families keeps as IPv6 is shown as what it is.
        let (source, destination) = (source.address.to_canonical(), destination.address.to_canonical());
        let text = &mut group.text;
        if before > 0 {
            text.push(b',');
        }
        text.push(b'"');
        push_number(text, record.time);
        for address in [source, destination] {
            text.push(b',');
            push_address(text, address);
        }
        for number in [source_port, destination_port, u16::from(protocol)] {
            text.push(b',');
            push_number(text, number.into());
        }
        text.extend_from_slice(&[b',', direction, b',', state, b',', b'N', b'X']);
        for number in [sent, sent_bytes, received, received_bytes] {
            text.push(b',');
            push_number(text, number);
        }
        text.push(b'"');
        group.tuples += 1;
        self.bytes += group.text.len() - before;
        self.tuples += 1;
    }

    /// Writes what was added, as records of this time (milliseconds since 1970). What cannot be written is kept for the next
    /// time.
    ///
    /// # Errors
    /// The first file that cannot be written, with its path.
    pub fn flush(&mut self, time: u64) -> Result<(), FlowLogError> {
        let mut result = Ok(());
        let mut kept = (0, 0);
        let mut names: Vec<_> = self.nics.iter_mut().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        for nic in names.into_iter().flat_map(|(_, nics)| nics) {
            let Some(target) = &nic.target else { continue };
            let region = self.regions.get(&nic.network);
            let region = region.map_or_else(|| "UNKNOWN".to_owned(), |region| region.to_uppercase());
            nic.hours.retain(|hour, groups| {
                let written = write(&self.folder, time, (&region, target, &nic.mac_address), *hour, groups);
                let failed = written.is_err();
                if failed {
                    kept.0 += groups.iter().map(|group| group.text.len()).sum::<usize>();
                    kept.1 += groups.iter().map(|group| group.tuples).sum::<u64>();
                }
                if result.is_ok() {
                    result = written;
                }
                failed
            });
        }
        (self.bytes, self.tuples) = kept;
        // Those that have nothing to write are found again when there is something.
        for nics in self.nics.values_mut() {
            nics.retain(|nic| !nic.hours.is_empty());
        }
        self.nics.retain(|_, nics| !nics.is_empty());
        result
    }

    /// How many tuples wait to be written.
    pub fn waiting(&self) -> u64 {
        self.tuples
    }

    /// Whether so many wait that they should be written now.
    pub fn is_large(&self) -> bool {
        self.bytes >= MANY_WAITING
    }

    /// How many tuples were not written, and will not be.
    pub fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Gives up what waits: it will not be written.
    pub fn give_up(&mut self) {
        self.unwritten += std::mem::take(&mut self.tuples);
        self.nics.clear();
        self.bytes = 0;
    }

    /// Deletes files that are older than what is kept, at a time in milliseconds since 1970, and folders that are empty then.
    /// Only files whose paths are exactly those that are written here are deleted. Tells how many were.
    ///
    /// # Errors
    /// The first file or folder that could not be read or deleted; the others are.
    pub fn delete_old(&self, time: u64) -> Result<u64, FlowLogError> {
        let Some(days) = self.retention else { return Ok(0) };
        let hour = i64::try_from(time / 3_600_000).unwrap_or_default();
        let oldest = hour.saturating_sub(i64::from(days) * 24);
        let mut deleting = Deleting { oldest, deleted: 0, result: Ok(()) };
        deleting.folder(&self.folder.join(BELOW).join(RESOURCE), &mut Vec::new());
        deleting.result.map(|()| deleting.deleted)
    }
}

/// How many tuples a record becomes, if each of its NICs is in a log.
pub fn tuples_of(record: &Record) -> u64 {
    let is_nic = |port: PortId| {
        let port = record.snapshot.port(port).filter(|port| port.kind == PortKind::Nic);
        u64::from(port.and_then(|port| port.identity).is_some_and(|key| record.snapshot.identity(key).is_some()))
    };
    match (record.event, &record.about) {
        (Event::Reply | Event::Related | Event::Unsent(_), _) | (_, About::Port(_)) => 0,
        (_, About::Flow(sides)) => is_nic(sides.ingress) + is_nic(sides.egress),
        // It was on its way to one.
        (Event::Dropped(DropReason::NsgInboundDenied), About::Packet(subject)) => is_nic(subject.ingress) + 1,
        (_, About::Packet(subject)) => is_nic(subject.ingress),
    }
}

/// The log that a NIC is in: its own, else its subnet's, else its network's, as in Azure.
fn target(targets: &[Target], nic: &str, subnet: &SubnetSeen) -> Option<Target> {
    let of_subnet = Target::Subnet(subnet.network.clone(), subnet.subnet.clone());
    if targets.is_empty() {
        return Some(of_subnet);
    }
    let candidates = [Target::Nic(nic.to_owned()), of_subnet, Target::Network(subnet.network.clone())];
    candidates.into_iter().find(|candidate| targets.contains(candidate))
}

/// Appends a record of these groups, in the order of Azure's fields.
fn write(
    folder: &Path,
    time: u64,
    (region, target, mac): (&str, &Target, &str),
    hour: i64,
    groups: &mut [Group],
) -> Result<(), FlowLogError> {
    let log = target.log_name();
    let id = format!(
        "/SUBSCRIPTIONS/{SUBSCRIPTION}/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/\
         NETWORKWATCHER_{region}/FLOWLOGS/{log}"
    );
    groups.sort_unstable_by(|one, other| (&one.acl, &one.rule).cmp(&(&other.acl, &other.rule)));
    let record = FileRecord {
        time: timestamp(time),
        flow_log_version: 4,
        flow_log_guid: guid(&id),
        mac_address: mac,
        category: "FlowLogFlowEvent",
        flow_log_resource_id: id,
        target_resource_id: target.resource_id(),
        operation_name: "FlowLogFlowEvent",
    };
    let path = folder.join(path_of(region, &log, hour, mac));
    let failed = |source: io::Error| FlowLogError { path: path.clone(), source };
    let mut line = Vec::with_capacity(1_024 + groups.iter().map(|group| group.text.len() + 128).sum::<usize>());
    serde_json::to_writer(&mut line, &record).map_err(|error| failed(error.into()))?;
    // Flows are the last of its fields, and text already.
    line.pop();
    line.extend_from_slice(b",\"flowRecords\":{\"flows\":[");
    let mut before: Option<&Group> = None;
    for group in groups.iter() {
        match before {
            Some(before) if before.acl == group.acl => line.push(b','),
            _ => {
                line.extend_from_slice(if before.is_some() { b"]}," } else { b"" });
                line.extend_from_slice(b"{\"aclID\":");
                serde_json::to_writer(&mut line, &group.acl).map_err(|error| failed(error.into()))?;
                line.extend_from_slice(b",\"flowGroups\":[");
            }
        }
        line.extend_from_slice(b"{\"rule\":");
        serde_json::to_writer(&mut line, &group.rule).map_err(|error| failed(error.into()))?;
        line.extend_from_slice(b",\"flowTuples\":[");
        line.extend_from_slice(&group.text);
        line.extend_from_slice(b"]}");
        before = Some(group);
    }
    line.extend_from_slice(if before.is_some() { b"]}]}}" } else { b"]}}" });
    append(&path, &line).map_err(failed)
}

/// A flow log that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the flow log {}", path.display())]
pub struct FlowLogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    source: io::Error,
}

/// `2026-06-09T07:01:00.1230000Z`, as Azure writes times.
fn timestamp(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1_000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}0000Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        milliseconds % 1_000
    )
}

/// `UserRule_allow-web`, `DefaultRule_AllowInternetOutBound`.
fn rule_name(rule: &str) -> String {
    match rule.split_once('/') {
        Some(("defaultSecurityRules", name)) => format!("DefaultRule_{name}"),
        Some((_, name)) => format!("UserRule_{name}"),
        None => format!("UserRule_{rule}"),
    }
}

/// Bytes that follow from a text, the same in every process and release. `salt` tells uses of one name apart.
fn bytes_of<const N: usize>(text: &str, salt: u8) -> [u8; N] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[salt]);
    context.update(text.as_bytes());
    let mut bytes = [0; N];
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// A GUID that follows from a name (RFC 9562 section 5.8: version 8).
fn guid(name: &str) -> String {
    let number = u128::from_be_bytes(bytes_of(name, 0));
    let (high, low) = ((number >> 64) as u64 & !0xf000 | 0x8000, number as u64 & !(0b11 << 62) | 0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The MAC address of a NIC, which a TUN device has none of: a locally administered one that follows from its name.
pub fn mac_address(nic: &str) -> String {
    bytes_of::<5>(nic, 1).iter().fold("02".to_owned(), |mac, byte| format!("{mac}{byte:02X}"))
}

#[cfg(test)]
mod tests;
