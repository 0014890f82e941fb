//! The groups of a subnet or NIC and their effective rules, for people and in the shape of `az network nic
//! list-effective-nsg`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Groups, PlannedGroup, PlannedRule, Side};
use crate::model::network::{Direction, RuleProtocol};
use crate::plan::{Plan, UnknownName};
use crate::snapshot::Access;
use crate::table::classifier::Addresses;

/// What stands for everything.
const ANY: &str = "*";

/// The network security groups that packets of a subnet or NIC meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsgAnswer {
    /// The subnet or NIC that was asked about.
    pub of: String,
    /// Its groups: that of the subnet first, as packets to it meet them.
    pub groups: Vec<AzureNetworkSecurityGroup>,
}

impl NsgAnswer {
    /// The answer as Azure's tool gives it.
    pub fn azure(&self) -> AzureNetworkSecurityGroups {
        AzureNetworkSecurityGroups { next_link: None, value: self.groups.clone() }
    }
}

/// A page of effective groups, the whole of Azure's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureNetworkSecurityGroups {
    /// Where the next page is: there is only one.
    pub next_link: Option<String>,
    /// The groups.
    pub value: Vec<AzureNetworkSecurityGroup>,
}

/// A group with its effective rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureNetworkSecurityGroup {
    /// The group.
    pub network_security_group: AzureId,
    /// Whose it is.
    pub association: AzureAssociation,
    /// Its rules and the default rules: inbound before outbound, each in the order of priority.
    pub effective_security_rules: Vec<AzureRule>,
    /// The addresses of each service tag of the rules.
    pub tag_map: BTreeMap<String, Vec<String>>,
}

/// Something by its name in the document, where Azure has a resource id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AzureId {
    /// `web`, `spoke/workload`.
    pub id: String,
}

/// Whose a group is: one of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureAssociation {
    /// A subnet.
    pub subnet: Option<AzureId>,
    /// A NIC.
    pub network_interface: Option<AzureId>,
    /// A network manager, which nothing here has.
    pub network_manager: Option<AzureId>,
}

/// An effective rule. Where a side has several prefixes or ranges, only the list has them; where it has one, both fields
/// do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureRule {
    /// `securityRules/allow-web`, `defaultSecurityRules/AllowVnetInBound`.
    pub name: String,
    /// `Tcp`, `Udp`, `Icmp`, `Esp`, `Ah` or `All`.
    pub protocol: String,
    /// `0-65535` stands for all.
    pub source_port_range: Option<String>,
    /// Every range.
    pub source_port_ranges: Vec<String>,
    /// As of the source.
    pub destination_port_range: Option<String>,
    /// As of the source.
    pub destination_port_ranges: Vec<String>,
    /// A prefix, a service tag, or `*`.
    pub source_address_prefix: Option<String>,
    /// Every prefix and tag.
    pub source_address_prefixes: Vec<String>,
    /// As of the source.
    pub destination_address_prefix: Option<String>,
    /// As of the source.
    pub destination_address_prefixes: Vec<String>,
    /// The addresses of the source, where it is written with a service tag or application security groups.
    pub expanded_source_address_prefix: Option<Vec<String>>,
    /// As of the source.
    pub expanded_destination_address_prefix: Option<Vec<String>>,
    /// Application security groups of the source. Azure's tool has no such field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_application_security_groups: Vec<AzureId>,
    /// As of the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_application_security_groups: Vec<AzureId>,
    /// `Allow` or `Deny`.
    pub access: String,
    /// Its priority.
    pub priority: u16,
    /// `Inbound` or `Outbound`.
    pub direction: String,
}

impl Plan {
    /// The network security groups of a subnet, or of a NIC and its subnet, by its name as in
    /// [`Plan::find_subnet_or_nic`].
    ///
    /// # Errors
    /// [`UnknownName`], with the nearest name.
    pub fn network_security_groups(&self, name: &str) -> Result<NsgAnswer, UnknownName> {
        let network = self.network();
        let subnet = self.find_subnet_or_nic(name)?;
        let subnet_name = network.subnet_name(subnet);
        let nic = network.nics.iter().position(|nic| nic.name.eq_ignore_ascii_case(name));
        let nic = nic.filter(|_| !subnet_name.eq_ignore_ascii_case(name));
        let own = nic.and_then(|nic| {
            let name = network.nics[nic].name.clone();
            self.groups.nics[nic][1].map(|group| (group, AzureAssociation::of_nic(name)))
        });
        let of = nic.map_or(&subnet_name, |nic| &network.nics[nic].name).clone();
        let of_subnet = self.groups.subnets.get(&subnet);
        let of_subnet = of_subnet.map(|group| (*group, AzureAssociation::of_subnet(subnet_name)));
        let groups = of_subnet.into_iter().chain(own);
        let groups = groups.map(|(group, association)| self.groups.answer(&self.groups.groups[group], association));
        Ok(NsgAnswer { of, groups: groups.collect() })
    }
}

impl AzureAssociation {
    fn of_subnet(id: String) -> Self {
        Self { subnet: Some(AzureId { id }), network_interface: None, network_manager: None }
    }

    fn of_nic(id: String) -> Self {
        Self { subnet: None, network_interface: Some(AzureId { id }), network_manager: None }
    }
}

impl Groups {
    fn answer(&self, group: &PlannedGroup, association: AzureAssociation) -> AzureNetworkSecurityGroup {
        let tags = group.rules.iter().flat_map(|rule| [&rule.source.tag, &rule.destination.tag]).flatten();
        let tags = tags.map(|(name, set)| (name.clone(), texts(&self.sets[set.0 as usize])));
        AzureNetworkSecurityGroup {
            network_security_group: AzureId { id: group.name.clone() },
            association,
            tag_map: tags.collect(),
            effective_security_rules: group.rules.iter().map(|rule| self.rule(rule)).collect(),
        }
    }

    fn rule(&self, rule: &PlannedRule) -> AzureRule {
        let ids = |side: &Side| side.application_groups.iter().map(|id| AzureId { id: id.clone() }).collect();
        let (source_address_prefix, source_address_prefixes) = one_or_all(written(&rule.source));
        let (destination_address_prefix, destination_address_prefixes) = one_or_all(written(&rule.destination));
        let (source_port_range, source_port_ranges) = one_or_all(ports(&rule.source_ports));
        let (destination_port_range, destination_port_ranges) = one_or_all(ports(&rule.destination_ports));
        AzureRule {
            name: rule.info.name.clone(),
            protocol: match rule.protocol {
                RuleProtocol::Any => "All",
                RuleProtocol::Tcp => "Tcp",
                RuleProtocol::Udp => "Udp",
                RuleProtocol::Icmp => "Icmp",
                RuleProtocol::Esp => "Esp",
                RuleProtocol::Ah => "Ah",
            }
            .to_owned(),
            source_port_range,
            source_port_ranges,
            destination_port_range,
            destination_port_ranges,
            source_address_prefix,
            source_address_prefixes,
            destination_address_prefix,
            destination_address_prefixes,
            expanded_source_address_prefix: self.expanded(&rule.source),
            expanded_destination_address_prefix: self.expanded(&rule.destination),
            source_application_security_groups: ids(&rule.source),
            destination_application_security_groups: ids(&rule.destination),
            access: match rule.info.access {
                Access::Allow => "Allow",
                Access::Deny => "Deny",
            }
            .to_owned(),
            priority: rule.info.priority,
            direction: match rule.direction {
                Direction::Inbound => "Inbound",
                Direction::Outbound => "Outbound",
            }
            .to_owned(),
        }
    }

    /// The addresses of a side, where they are not what is written.
    fn expanded(&self, side: &Side) -> Option<Vec<String>> {
        let Addresses::In(sets) = &side.addresses else { return None };
        let is_expanded = side.tag.is_some() || !side.application_groups.is_empty();
        is_expanded.then(|| sets.iter().flat_map(|set| texts(&self.sets[set.0 as usize])).collect())
    }
}

/// The prefixes and the tag of a side.
fn written(side: &Side) -> Vec<String> {
    if side.addresses == Addresses::Any {
        return vec![ANY.to_owned()];
    }
    let tag = side.tag.iter().map(|(name, _)| name.clone());
    side.prefixes.iter().map(ToString::to_string).chain(tag).collect()
}

fn ports(ranges: &[RangeInclusive<u16>]) -> Vec<String> {
    if ranges.is_empty() {
        return vec![format!("0-{}", u16::MAX)];
    }
    let text = |range: &RangeInclusive<u16>| format!("{}-{}", range.start(), range.end());
    ranges.iter().map(text).collect()
}

fn one_or_all(all: Vec<String>) -> (Option<String>, Vec<String>) {
    let one = match all.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    (one, all)
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}
