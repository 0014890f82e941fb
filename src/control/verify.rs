//! Would network security groups let a packet pass? The answer of the stage that forwarding asks, for each group in its
//! order.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::answers::VerifyQuery;
use super::explain::{
    DESTINATION_PORT, SOURCE_PORT, destination, has_ports, number, port_of, sender, socket, subnet_or_nic,
};
use super::refusal::Refusal;
use crate::path::nsg::{Association, Direction, asked, decide};
use crate::path::subject::Subject;
use crate::plan::explain::protocol_name;
use crate::plan::nsg::NsgAnswer;
use crate::plan::{Plan, UnknownName};
use crate::snapshot::{Access, NsgId, Snapshot};

/// Whether a packet passes. The first two fields are those of `az network watcher test-ip-flow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyAnswer {
    /// `Allow` or `Deny`.
    pub access: String,
    /// The rule that decided: that of the group which denies, or which was asked last. None where there is no group, and for
    /// addresses of the platform that no rule is about.
    pub rule_name: Option<String>,
    /// Generation of the snapshot that decided; 1 for a document that nobody runs.
    pub generation: u64,
    /// `Inbound` or `Outbound`.
    pub direction: String,
    /// `tcp`, `udp`, … or the protocol's number.
    pub protocol: String,
    /// The NIC.
    pub nic: String,
    /// Its subnet.
    pub subnet: String,
    /// The NIC's side: address, and port where the protocol has any.
    pub local: String,
    /// The other side.
    pub remote: String,
    /// The groups in the order in which the packet meets them.
    pub groups: Vec<GroupRuling>,
}

/// What one group says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRuling {
    /// Whose group it is: `subnet` or `networkInterface`.
    pub association: String,
    /// The group.
    pub network_security_group: String,
    /// `Allow` or `Deny`; none where an earlier group denied, and this one is not asked.
    pub access: Option<String>,
    /// The rule.
    pub rule_name: Option<String>,
    /// Its priority.
    pub priority: Option<u16>,
}

/// The network security groups of a NIC or subnet.
///
/// # Errors
/// [`Refusal::Unknown`]
pub fn network_security_groups(plan: &Plan, of: &str) -> Result<NsgAnswer, Refusal> {
    plan.network_security_groups(of).map_err(|error| Refusal::Unknown(error.to_string()))
}

/// Asks the groups of a NIC about a packet that it would send or get.
///
/// # Errors
/// [`Refusal::Unknown`] for names; [`Refusal::Malformed`] for a direction or protocol that is none, and for ports that are
/// said twice or that the protocol does not have; [`Refusal::Conflict`] for a subnet without a NIC.
pub fn verify(plan: &Plan, snapshot: &Snapshot, query: &VerifyQuery) -> Result<VerifyAnswer, Refusal> {
    let network = plan.network();
    let direction = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .find(|direction| direction.name().eq_ignore_ascii_case(&query.direction));
    let direction = direction.ok_or_else(|| {
        Refusal::Malformed(format!("`{}` is no direction: write inbound or outbound", query.direction))
    })?;
    let (here, there) = match direction {
        Direction::Outbound => (&query.from, &query.to),
        Direction::Inbound => (&query.to, &query.from),
    };
    let subnet = subnet_or_nic(plan, here)?;
    let remotes = remotes(plan, there)?;
    let mut found = Err(Refusal::Conflict(format!("{there} has no address")));
    for remote in remotes {
        found = sender(network, subnet, here, remote).map(|(nic, local)| (nic, local, remote));
        if found.is_ok() {
            break;
        }
    }
    let (nic, local, remote) = found?;
    let protocol = number(&query.protocol, remote)?;
    let with_ports = has_ports(protocol);
    if !with_ports && [query.port, query.local_port, query.remote_port].iter().any(Option::is_some) {
        return Err(Refusal::Malformed(format!("{} has no ports: leave them out", protocol_name(protocol))));
    }
    let (local_port, remote_port) = ports(query, direction)?;
    let port = port_of(snapshot, nic).ok_or_else(|| {
        Refusal::Conflict(format!("the NIC {} has no port in generation {}", nic.name, snapshot.generation))
    })?;
    let (source, destination) = match direction {
        Direction::Outbound => ((local, local_port), (remote, remote_port)),
        Direction::Inbound => ((remote, remote_port), (local, local_port)),
    };
    let subject = Subject {
        ingress: port,
        source: source.0,
        destination: destination.0,
        protocol,
        source_port: source.1,
        destination_port: destination.1,
    };
    let groups = snapshot.port(port).map(|port| rulings(snapshot, asked(port, direction), direction, &subject));
    let groups = groups.unwrap_or_default();
    let decided = groups.iter().rfind(|group| group.access.is_some());
    let shown = |address: IpAddr, port: u16| if with_ports { socket(address, port) } else { address.to_string() };
    Ok(VerifyAnswer {
        access: decided.and_then(|group| group.access.clone()).unwrap_or_else(|| name(Access::Allow)),
        rule_name: decided.and_then(|group| group.rule_name.clone()),
        generation: snapshot.generation,
        direction: direction.name().to_owned(),
        protocol: protocol_name(protocol),
        nic: nic.name.clone(),
        subnet: network.subnet_name(nic.subnet),
        local: shown(local, local_port),
        remote: shown(remote, remote_port),
        groups,
    })
}

/// Asks the groups until one denies.
fn rulings(
    snapshot: &Snapshot,
    asked: impl Iterator<Item = (Association, NsgId)>,
    direction: Direction,
    subject: &Subject,
) -> Vec<GroupRuling> {
    let mut denied = false;
    let mut rulings = Vec::new();
    for (association, group) in asked {
        let Some(ruling) = decide(snapshot, group, direction, subject) else { continue };
        let rule = ruling.rule.filter(|_| !denied);
        rulings.push(GroupRuling {
            association: match association {
                Association::Subnet => "subnet",
                Association::NetworkInterface => "networkInterface",
            }
            .to_owned(),
            network_security_group: ruling.nsg.name.clone(),
            access: (!denied).then(|| name(ruling.access)),
            rule_name: rule.map(|rule| rule.name.clone()),
            priority: rule.map(|rule| rule.priority),
        });
        denied |= ruling.access == Access::Deny;
    }
    rulings
}

fn name(access: Access) -> String {
    match access {
        Access::Allow => "Allow",
        Access::Deny => "Deny",
    }
    .to_owned()
}

/// Ports of the NIC's side and of the other.
fn ports(query: &VerifyQuery, direction: Direction) -> Result<(u16, u16), Refusal> {
    let (destination, option) = match direction {
        Direction::Outbound => (query.remote_port, "--remote-port"),
        Direction::Inbound => (query.local_port, "--local-port"),
    };
    if destination.is_some() && query.port.is_some() {
        let text = format!("--port and {option} are the same port of {} traffic: leave one out", direction.name());
        return Err(Refusal::Malformed(text));
    }
    let destination = destination.or(query.port).unwrap_or(DESTINATION_PORT);
    Ok(match direction {
        Direction::Outbound => (query.local_port.unwrap_or(SOURCE_PORT), destination),
        Direction::Inbound => (destination, query.remote_port.unwrap_or(SOURCE_PORT)),
    })
}

/// The addresses that the other side may have: an address, or those of a NIC or of a service.
fn remotes(plan: &Plan, name: &str) -> Result<Vec<IpAddr>, Refusal> {
    let nics = &plan.network().nics;
    if let Some(nic) = nics.iter().find(|nic| nic.name.eq_ignore_ascii_case(name)) {
        return Ok(nic.private_addresses.clone());
    }
    destination(plan, name).map(|address| vec![address]).map_err(|refusal| {
        let known = nics.iter().map(|nic| nic.name.as_str());
        let unknown = UnknownName::new("address, NIC, service or host name of a service", name, known);
        if unknown.nearest.is_some() { Refusal::Unknown(unknown.to_string()) } else { refusal }
    })
}
