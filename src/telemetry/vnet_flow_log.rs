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
//! A file is whole JSON after every write: what ends it is written anew behind each record. A file that a crash has cut is cut
//! back to its last whole record when it is written to again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use time::OffsetDateTime;

use super::flow_record::{FlowEvent, FlowRecord, RuleSeen, SubnetSeen};

/// What a record says where no group or rule decided.
const UNSPECIFIED: &str = "unspecified";

/// The subscription that everything is in.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";

/// The resource group of the networks.
const RESOURCE_GROUP: &str = "sidestep";

/// What stands before the first record of a file, between two, and behind the last.
const BEGIN: &[u8] = b"{\"records\":[\n";
const BETWEEN: &[u8] = b",\n";
const END: &[u8] = b"\n]}\n";

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

/// One tuple of a flow log, with what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tuple {
    nic: String,
    target: Target,
    network: String,
    /// Hours since 1970.
    hour: i64,
    acl: String,
    rule: String,
    text: String,
}

/// A record of a file, in the order of Azure's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileRecord<'a> {
    time: String,
    flow_log_version: u8,
    #[serde(rename = "flowLogGUID")]
    flow_log_guid: String,
    mac_address: String,
    category: &'static str,
    #[serde(rename = "flowLogResourceID")]
    flow_log_resource_id: String,
    #[serde(rename = "targetResourceID")]
    target_resource_id: String,
    operation_name: &'static str,
    flow_records: FlowRecords<'a>,
}

#[derive(Debug, Serialize)]
struct FlowRecords<'a> {
    flows: Vec<Flows<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Flows<'a> {
    #[serde(rename = "aclID")]
    acl_id: String,
    flow_groups: Vec<FlowGroup<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowGroup<'a> {
    rule: &'a str,
    flow_tuples: Vec<&'a str>,
}

/// Files of flow logs in a folder.
#[derive(Debug)]
pub struct VnetFlowLog {
    folder: PathBuf,
    /// None: every subnet has a log of its own.
    targets: Vec<Target>,
    /// Regions of virtual networks.
    regions: HashMap<String, String>,
    waiting: Vec<Tuple>,
}

impl VnetFlowLog {
    /// Files below a folder, for these targets; of none, a log for every subnet.
    pub fn new(folder: PathBuf, targets: Vec<Target>) -> Self {
        Self { folder, targets, regions: HashMap::new(), waiting: Vec::new() }
    }

    /// Tells the regions of virtual networks, by name.
    pub fn set_regions(&mut self, regions: HashMap<String, String>) {
        self.regions = regions;
    }

    /// Takes a record in. It is in the files after [`VnetFlowLog::flush`].
    pub fn add(&mut self, record: &FlowRecord) {
        if let (Some(nic), Some(subnet)) = (&record.ingress, &record.from_subnet) {
            let rule = record.outbound.as_ref();
            self.tuple(record, nic, subnet, rule, 'O', (record.source, record.destination));
        }
        if let (Some(nic), Some(subnet)) = (&record.egress, &record.to_subnet) {
            let sides = match record.event {
                FlowEvent::Denied => (record.source, record.destination),
                _ => (record.presented, record.reached),
            };
            self.tuple(record, nic, subnet, record.inbound.as_ref(), 'I', sides);
        }
    }

    fn tuple(
        &mut self,
        record: &FlowRecord,
        nic: &str,
        subnet: &SubnetSeen,
        rule: Option<&RuleSeen>,
        direction: char,
        sides: (Option<super::flow_record::Socket>, Option<super::flow_record::Socket>),
    ) {
        let (Some(source), Some(destination)) = sides else { return };
        let state = match record.event {
            FlowEvent::Begin => 'B',
            FlowEvent::Continue => 'C',
            FlowEvent::End => 'E',
            FlowEvent::Denied => 'D',
            FlowEvent::Reply | FlowEvent::Related | FlowEvent::Unsent => return,
        };
        let Some(target) = self.target(nic, subnet) else { return };
        let counted = if state == 'D' { ([0; 2], [0; 2]) } else { (record.packets, record.bytes) };
        let ([sent, received], [sent_bytes, received_bytes]) = counted;
        let protocol = record.protocol.unwrap_or_default();
        let (source_port, destination_port) = (source.port, destination.port);
        let (source, destination) = (canonical(source.address), canonical(destination.address));
        let time = record.time;
        let text = format!(
            "{time},{source},{destination},{source_port},{destination_port},{protocol},{direction},{state},NX,{sent},{sent_bytes},\
             {received},{received_bytes}"
        );
        // What a group allows or denies is told with its rule; what was denied otherwise has none.
        let said = rule.filter(|rule| (state == 'D') != rule.allowed);
        self.waiting.push(Tuple {
            nic: nic.to_owned(),
            target,
            network: subnet.network.clone(),
            hour: i64::try_from(record.time / 3_600_000).unwrap_or_default(),
            acl: said.map_or_else(|| UNSPECIFIED.to_owned(), |rule| guid(&rule.group)),
            rule: said.and_then(|rule| rule.rule.as_deref()).map_or_else(|| UNSPECIFIED.to_owned(), rule_name),
            text,
        });
    }

    /// The log that a NIC is in: its own, else its subnet's, else its network's, as in Azure.
    fn target(&self, nic: &str, subnet: &SubnetSeen) -> Option<Target> {
        let of_subnet = || Target::Subnet(subnet.network.clone(), subnet.subnet.clone());
        if self.targets.is_empty() {
            return Some(of_subnet());
        }
        let candidates = [Target::Nic(nic.to_owned()), of_subnet(), Target::Network(subnet.network.clone())];
        candidates.into_iter().find(|candidate| self.targets.contains(candidate))
    }

    /// Writes what was added, as records of this time (milliseconds since 1970). What cannot be written is kept for the next
    /// time.
    ///
    /// # Errors
    /// The first file that cannot be written, with its path.
    pub fn flush(&mut self, time: u64) -> Result<(), FlowLogError> {
        let mut files: BTreeMap<(Target, String, i64), Vec<Tuple>> = BTreeMap::new();
        for tuple in std::mem::take(&mut self.waiting) {
            files.entry((tuple.target.clone(), tuple.nic.clone(), tuple.hour)).or_default().push(tuple);
        }
        let mut result = Ok(());
        for ((target, nic, hour), tuples) in files {
            if let Err(error) = self.write(time, &target, &nic, hour, &tuples) {
                self.waiting.extend(tuples);
                result = result.and(Err(error));
            }
        }
        result
    }

    /// How many tuples wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets tuples beyond a number, the oldest first, and gives how many: where nothing can be written, memory is bounded.
    pub fn forget_beyond(&mut self, most: usize) -> usize {
        let forgotten = self.waiting.len().saturating_sub(most);
        self.waiting.drain(..forgotten);
        forgotten
    }

    fn write(&self, time: u64, target: &Target, nic: &str, hour: i64, tuples: &[Tuple]) -> Result<(), FlowLogError> {
        let region = tuples.first().and_then(|tuple| self.regions.get(&tuple.network));
        let region = region.map_or_else(|| "UNKNOWN".to_owned(), |region| region.to_uppercase());
        let log = target.log_name();
        let mac = mac_address(nic);
        let id = format!(
            "/SUBSCRIPTIONS/{SUBSCRIPTION}/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/\
             NETWORKWATCHER_{region}/FLOWLOGS/{log}"
        );
        let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for tuple in tuples {
            groups.entry((&tuple.acl, &tuple.rule)).or_default().push(&tuple.text);
        }
        let mut flows: Vec<Flows<'_>> = Vec::new();
        for ((acl, rule), flow_tuples) in groups {
            let group = FlowGroup { rule, flow_tuples };
            match flows.last_mut().filter(|flows| flows.acl_id == acl) {
                Some(flows) => flows.flow_groups.push(group),
                None => flows.push(Flows { acl_id: acl.to_owned(), flow_groups: vec![group] }),
            }
        }
        let record = FileRecord {
            time: timestamp(time),
            flow_log_version: 4,
            flow_log_guid: guid(&id),
            mac_address: mac.clone(),
            category: "FlowLogFlowEvent",
            flow_log_resource_id: id,
            target_resource_id: target.resource_id(),
            operation_name: "FlowLogFlowEvent",
            flow_records: FlowRecords { flows },
        };
        let path = self.folder.join(path_of(&region, &log, hour, &mac));
        let failed = |source: io::Error| FlowLogError { path: path.clone(), source };
        let line = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        append(&path, &line).map_err(failed)
    }
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

/// Appends a record to a file, which is made where it is missing and is whole JSON before and after.
fn append(path: &Path, record: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let length = file.metadata()?.len();
    let whole = if length == 0 { 0 } else { whole_records(&mut file, length)? };
    let mut bytes = Vec::with_capacity(record.len() + BEGIN.len() + END.len());
    bytes.extend_from_slice(if whole == 0 { BEGIN } else { BETWEEN });
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(END);
    file.seek(SeekFrom::Start(whole))?;
    file.write_all(&bytes)?;
    file.set_len(whole + bytes.len() as u64)
}

/// Where the last whole record of a file ends; 0 where there is none.
fn whole_records(file: &mut File, length: u64) -> io::Result<u64> {
    let end = END.len() as u64;
    if length >= end {
        let mut tail = [0; END.len()];
        file.seek(SeekFrom::Start(length - end))?;
        file.read_exact(&mut tail)?;
        if tail == END {
            return Ok(length - end);
        }
    }
    // It was cut: what is whole are lines that are records.
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let mut whole = 0;
    let mut place = BEGIN.len();
    while let Some(line) = bytes.get(place..) {
        let length = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
        let Some(line) = line.get(..length) else { break };
        let record = line.strip_suffix(b",").unwrap_or(line);
        if record.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(record).is_err() {
            break;
        }
        whole = place + record.len();
        place += length + 1;
    }
    Ok(whole as u64)
}

/// The path of a file below the folder.
fn path_of(region: &str, log: &str, hour: i64, mac: &str) -> PathBuf {
    let time = OffsetDateTime::from_unix_timestamp(hour.saturating_mul(3_600)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day, hour) = (time.year(), u8::from(time.month()), time.day(), time.hour());
    PathBuf::from("insights-logs-flowlogflowevent")
        .join("flowLogResourceID=")
        .join(format!("{SUBSCRIPTION}_NETWORKWATCHERRG"))
        .join(format!("NETWORKWATCHER_{region}_{log}"))
        .join(format!("y={year:04}"))
        .join(format!("m={month:02}"))
        .join(format!("d={day:02}"))
        .join(format!("h={hour:02}"))
        .join("m=00")
        .join(format!("macAddress={mac}"))
        .join("PT1H.json")
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

/// An IPv4 address that a flow between the families keeps as IPv6 is shown as what it is.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A number that follows from a text, the same in every process.
fn number(text: &str, salt: u8) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, text).hash(&mut hasher);
    hasher.finish()
}

/// A GUID that follows from a name (RFC 9562 section 5.8: version 8).
fn guid(name: &str) -> String {
    let (high, low) = (number(name, 0), number(name, 1));
    let high = high & !0xf000 | 0x8000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
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
    format!("02{:010X}", number(nic, 2) & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests;
