//! Network security groups: rules with the addresses that they stand for, and the groups that each subnet and NIC has.
//!
//! What `VirtualNetwork` and `Internet` stand for depends on where a group is used (see `spaces`), and so does whom an
//! application security group means: its NICs in the network, and in those that it is peered with, for other networks may
//! have the same addresses. A group is compiled once for each network and each of these sets that it meets: once for all
//! subnets of a network with the same route table. Sets of addresses are the same sets for all groups, and only tags that
//! a rule of a group in use names become sets.
//!
//! A packet to an address of the platform meets none but the rules whose destination is the tag of such an address; these
//! stand in a list of their own.

mod answer;
mod spaces;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

pub use answer::{
    AzureAssociation, AzureId, AzureNetworkSecurityGroup, AzureNetworkSecurityGroups, AzureRule, NsgAnswer,
};
use spaces::{PLATFORM_DNS, PLATFORM_IMDS};

use super::mistake::{MissingTag, PlanError, TagUser};
use crate::model::network::{
    Access, Direction, Network, NetworkSecurityGroup, Nic, RuleAddresses, RuleProtocol, RuleTag, SecurityRule,
    SubnetRef,
};
use crate::snapshot::{self, NicNsgs, Nsg, NsgId, RuleInfo};
use crate::table::classifier::{Addresses, Classes, Classifier, Protocols, Rule, SetId};
use crate::tags::Catalogue;

/// IP protocol numbers that the words of rules stand for (IANA, "Assigned Internet Protocol Numbers").
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ESP: u8 = 50;
const AH: u8 = 51;

/// One side of a rule: what is written there, and the addresses behind it.
#[derive(Debug, Clone)]
pub(super) struct Side {
    /// As in the classifier.
    pub(super) addresses: Addresses,
    /// Prefixes that are written out.
    pub(super) prefixes: Vec<IpNet>,
    /// The service tag, as the catalogue spells it, with its addresses.
    pub(super) tag: Option<(String, SetId)>,
    /// Names of application security groups.
    application_groups: Vec<String>,
}

/// A rule in a context.
#[derive(Debug, Clone)]
pub(super) struct PlannedRule {
    pub(super) info: RuleInfo,
    direction: Direction,
    protocol: RuleProtocol,
    source: Side,
    pub(super) destination: Side,
    source_ports: Vec<RangeInclusive<u16>>,
    destination_ports: Vec<RangeInclusive<u16>>,
    /// Whether the destination is an address of the platform by its tag.
    about_platform: bool,
}

/// A group in a context.
#[derive(Debug)]
struct PlannedGroup {
    name: String,
    flush: bool,
    /// Inbound before outbound, each in the order of priority.
    rules: Vec<PlannedRule>,
}

/// Every group that is in use, in every context, and who uses it.
#[derive(Debug)]
pub(crate) struct Groups {
    sets: Vec<Arc<[IpNet]>>,
    /// By [`NsgId`].
    groups: Vec<PlannedGroup>,
    pub(super) subnets: HashMap<SubnetRef, usize>,
    /// By NIC: that of its subnet, its own.
    pub(super) nics: Vec<[Option<usize>; 2]>,
}

impl Groups {
    /// Plans the groups of every subnet and NIC; notes tags that the catalogue does not have.
    pub(super) fn new(network: &Network, catalogue: &Catalogue, missing: &mut Vec<MissingTag>) -> Self {
        let mut planner = Planner { network, catalogue, missing, sets: Sets::default(), tags: HashMap::new() };
        let mut contexts: HashMap<(usize, Option<usize>), Context> = HashMap::new();
        let mut known: HashMap<(usize, Context), usize> = HashMap::new();
        let mut groups = Vec::new();
        let mut plan = |planner: &mut Planner<'_>, subnet: SubnetRef, group: Option<usize>| -> Option<usize> {
            let group = group?;
            let table = network.subnet(subnet).route_table;
            let key = (subnet.virtual_network, table);
            let context = *contexts.entry(key).or_insert_with(|| planner.context(subnet.virtual_network, table));
            Some(*known.entry((group, context)).or_insert_with(|| {
                groups.push(planner.group(&network.network_security_groups[group], context));
                groups.len() - 1
            }))
        };
        let mut subnets = HashMap::new();
        for (virtual_network, declared) in network.virtual_networks.iter().enumerate() {
            for (subnet, declared) in declared.subnets.iter().enumerate() {
                let subnet = SubnetRef { virtual_network, subnet };
                subnets
                    .extend(plan(&mut planner, subnet, declared.network_security_group).map(|group| (subnet, group)));
            }
        }
        let of_nic =
            |nic: &Nic| [subnets.get(&nic.subnet).copied(), plan(&mut planner, nic.subnet, nic.network_security_group)];
        let nics = network.nics.iter().map(of_nic).collect();
        Self { sets: planner.sets.lists, groups, subnets, nics }
    }

    /// The groups of a NIC, by its index.
    pub(super) fn of_nic(&self, nic: usize) -> NicNsgs {
        let [subnet, nic] = self.nics.get(nic).copied().unwrap_or_default();
        // There are no more groups than numbers: `compile` sees to it.
        let number = |group: Option<usize>| group.and_then(|group| u16::try_from(group).ok()).map(NsgId);
        NicNsgs { subnet: number(subnet), nic: number(nic) }
    }

    /// The name of a group in the document.
    pub(super) fn name(&self, group: usize) -> Option<&str> {
        self.groups.get(group).map(|group| group.name.as_str())
    }

    /// An outbound rule of a group by its place in the order of priority, which is what the compiled group knows it by.
    pub(super) fn outbound_rule(&self, group: usize, rule: usize) -> Option<&PlannedRule> {
        self.groups.get(group)?.of(Direction::Outbound).nth(rule)
    }

    /// The groups and the sets of addresses that they distinguish.
    ///
    /// # Errors
    /// [`PlanError::TooManySecurityGroups`].
    pub(super) fn compile(&self) -> Result<(Vec<Nsg>, Classes), PlanError> {
        if self.groups.len() > usize::from(u16::MAX) + 1 {
            return Err(PlanError::TooManySecurityGroups);
        }
        let classes = Classes::build(&self.sets);
        let nsgs = self.groups.iter().map(|group| Nsg {
            name: group.name.clone(),
            flush: group.flush,
            inbound: rules(&classes, group.of(Direction::Inbound), Rule::from),
            outbound: rules(&classes, group.of(Direction::Outbound), Rule::from),
            platform: rules(
                &classes,
                group.of(Direction::Outbound).filter(|rule| rule.about_platform),
                PlannedRule::of_platform,
            ),
        });
        let nsgs = nsgs.collect();
        Ok((nsgs, classes))
    }
}

/// A list of rules, compiled.
fn rules<'r>(
    classes: &Classes,
    rules: impl Iterator<Item = &'r PlannedRule> + Clone,
    rule: impl Fn(&'r PlannedRule) -> Rule,
) -> snapshot::Rules {
    let compiled: Vec<Rule> = rules.clone().map(rule).collect();
    snapshot::Rules {
        classifier: Classifier::build(classes, &compiled),
        rules: rules.map(|rule| rule.info.clone()).collect(),
    }
}

impl PlannedGroup {
    /// The rules of one direction in the order of priority.
    fn of(&self, direction: Direction) -> impl Iterator<Item = &PlannedRule> + Clone {
        self.rules.iter().filter(move |rule| rule.direction == direction)
    }
}

impl From<&PlannedRule> for Rule {
    fn from(rule: &PlannedRule) -> Self {
        Self {
            sources: rule.source.addresses.clone(),
            destinations: rule.destination.addresses.clone(),
            protocols: protocols(rule.protocol),
            source_ports: rule.source_ports.clone(),
            destination_ports: rule.destination_ports.clone(),
        }
    }
}

impl PlannedRule {
    /// The rule as packets to the platform meet it: only the tag counts for the destination, no prefix beside it.
    fn of_platform(&self) -> Rule {
        let tag = self.destination.tag.iter().map(|(_, set)| *set);
        Rule { destinations: Addresses::In(tag.collect()), ..self.into() }
    }
}

fn protocols(written: RuleProtocol) -> Protocols {
    Protocols::Only(match written {
        RuleProtocol::Any => return Protocols::Any,
        RuleProtocol::Tcp => vec![TCP],
        RuleProtocol::Udp => vec![UDP],
        RuleProtocol::Icmp => vec![ICMP, ICMPV6],
        RuleProtocol::Esp => vec![ESP],
        RuleProtocol::Ah => vec![AH],
    })
}

/// Distinct sets of addresses, numbered.
#[derive(Debug, Default)]
struct Sets {
    lists: Vec<Arc<[IpNet]>>,
    numbers: HashMap<Arc<[IpNet]>, SetId>,
}

impl Sets {
    fn number(&mut self, prefixes: impl IntoIterator<Item = IpNet>) -> SetId {
        let mut prefixes: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        prefixes.sort();
        prefixes.dedup();
        let prefixes: Arc<[IpNet]> = prefixes.into();
        *self.numbers.entry(prefixes).or_insert_with_key(|prefixes| {
            self.lists.push(prefixes.clone());
            SetId((self.lists.len() - 1) as u32)
        })
    }
}

/// What the tags stand for that depend on where a group is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Context {
    /// The network, by its index.
    network: usize,
    virtual_network: SetId,
    internet: SetId,
}

/// Plans groups: what they are made from, and the sets they share.
struct Planner<'a> {
    network: &'a Network,
    catalogue: &'a Catalogue,
    missing: &'a mut Vec<MissingTag>,
    sets: Sets,
    /// Tags of the catalogue that are sets already, by name.
    tags: HashMap<String, SetId>,
}

impl Planner<'_> {
    /// The context of subnets of a network with a route table.
    fn context(&mut self, virtual_network: usize, table: Option<usize>) -> Context {
        let table = table.map(|table| &self.network.route_tables[table]);
        Context {
            network: virtual_network,
            virtual_network: self.sets.number(spaces::virtual_network(
                self.network,
                virtual_network,
                table,
                self.catalogue,
            )),
            internet: self.sets.number(spaces::internet(self.network, virtual_network)),
        }
    }

    /// A group with its own rules and the default rules.
    fn group(&mut self, declared: &NetworkSecurityGroup, context: Context) -> PlannedGroup {
        let own = declared.security_rules.iter().map(|rule| ("securityRules", rule));
        let defaults = default_rules();
        let all = own.chain(defaults.iter().map(|rule| ("defaultSecurityRules", rule)));
        let mut rules: Vec<PlannedRule> =
            all.map(|(kind, rule)| self.rule(&declared.name, kind, rule, context)).collect();
        rules.sort_by_key(|rule| (rule.direction == Direction::Outbound, rule.info.priority));
        PlannedGroup { name: declared.name.clone(), flush: declared.flush_connection, rules }
    }

    fn rule(&mut self, group: &str, kind: &str, declared: &SecurityRule, context: Context) -> PlannedRule {
        let about_platform = matches!(
            &declared.destination,
            RuleAddresses::Listed { tag: Some(RuleTag::AzurePlatformDns | RuleTag::AzurePlatformImds), .. }
        );
        let mut side = |addresses| self.side(group, &declared.name, addresses, context);
        PlannedRule {
            info: RuleInfo {
                name: format!("{kind}/{}", declared.name),
                priority: declared.priority,
                access: match declared.access {
                    Access::Allow => snapshot::Access::Allow,
                    Access::Deny => snapshot::Access::Deny,
                },
            },
            direction: declared.direction,
            protocol: declared.protocol,
            source: side(&declared.source),
            destination: side(&declared.destination),
            source_ports: declared.source_ports.clone(),
            destination_ports: declared.destination_ports.clone(),
            about_platform,
        }
    }

    fn side(&mut self, group: &str, rule: &str, declared: &RuleAddresses, context: Context) -> Side {
        let mut side =
            Side { addresses: Addresses::Any, prefixes: Vec::new(), tag: None, application_groups: Vec::new() };
        match declared {
            RuleAddresses::Any => {}
            RuleAddresses::Listed { prefixes, tag } => {
                side.prefixes = prefixes.clone();
                side.tag = tag.as_ref().map(|tag| self.tag(group, rule, tag, context));
                let written = (!prefixes.is_empty()).then(|| self.sets.number(prefixes.iter().copied()));
                side.addresses =
                    Addresses::In(written.into_iter().chain(side.tag.iter().map(|(_, set)| *set)).collect());
            }
            RuleAddresses::ApplicationSecurityGroups(members) => {
                let groups = &self.network.application_security_groups;
                side.application_groups = members.iter().map(|group| groups[*group].name.clone()).collect();
                let is_member =
                    |nic: &&Nic| nic.application_security_groups.iter().any(|group| members.contains(group));
                let peerings = &self.network.virtual_networks[context.network].peerings;
                let is_near = |nic: &&Nic| {
                    let network = nic.subnet.virtual_network;
                    network == context.network || peerings.iter().any(|peering| peering.remote == network)
                };
                let nics = self.network.nics.iter().filter(is_member).filter(is_near);
                let addresses = nics.flat_map(|nic| nic.private_addresses.iter().copied());
                side.addresses = Addresses::In(vec![self.sets.number(addresses.map(IpNet::from))]);
            }
        }
        side
    }

    /// The name and the addresses of a tag.
    fn tag(&mut self, group: &str, rule: &str, tag: &RuleTag, context: Context) -> (String, SetId) {
        let mut one = |name: &str, address: IpAddr| (name.to_owned(), self.sets.number([address.into()]));
        match tag {
            RuleTag::VirtualNetwork => ("VirtualNetwork".to_owned(), context.virtual_network),
            RuleTag::Internet => ("Internet".to_owned(), context.internet),
            RuleTag::AzureLoadBalancer => one("AzureLoadBalancer", PLATFORM_DNS),
            RuleTag::AzurePlatformDns => one("AzurePlatformDNS", PLATFORM_DNS),
            RuleTag::AzurePlatformImds => one("AzurePlatformIMDS", PLATFORM_IMDS),
            RuleTag::Catalogue(written) => {
                let found = self.catalogue.get(written);
                if found.is_none() {
                    let user = TagUser::Rule { group: group.to_owned(), rule: rule.to_owned() };
                    let missing = MissingTag::new(user, written.clone(), self.catalogue);
                    // A group in several contexts misses its tags once.
                    if !self.missing.contains(&missing) {
                        self.missing.push(missing);
                    }
                }
                let name = found.map_or(written, |tag| &tag.name).clone();
                let set = match self.tags.get(&name) {
                    Some(set) => *set,
                    None => self.sets.number(found.iter().flat_map(|tag| tag.prefixes())),
                };
                self.tags.insert(name.clone(), set);
                (name, set)
            }
        }
    }
}

/// The rules that every group has (Azure, "Network security groups", default security rules).
fn default_rules() -> [SecurityRule; 6] {
    let tag = |tag| RuleAddresses::Listed { prefixes: Vec::new(), tag: Some(tag) };
    let rule = |direction, priority, name: &str, access, source, destination| SecurityRule {
        name: name.to_owned(),
        priority,
        direction,
        access,
        protocol: RuleProtocol::Any,
        source,
        destination,
        source_ports: Vec::new(),
        destination_ports: Vec::new(),
    };
    let inbound = |priority, name, access, source, destination| {
        rule(Direction::Inbound, priority, name, access, source, destination)
    };
    let outbound = |priority, name, access, source, destination| {
        rule(Direction::Outbound, priority, name, access, source, destination)
    };
    let (network, any) = (|| tag(RuleTag::VirtualNetwork), RuleAddresses::Any);
    [
        inbound(65_000, "AllowVnetInBound", Access::Allow, network(), network()),
        inbound(65_001, "AllowAzureLoadBalancerInBound", Access::Allow, tag(RuleTag::AzureLoadBalancer), any.clone()),
        inbound(65_500, "DenyAllInBound", Access::Deny, any.clone(), any.clone()),
        outbound(65_000, "AllowVnetOutBound", Access::Allow, network(), network()),
        outbound(65_001, "AllowInternetOutBound", Access::Allow, any.clone(), tag(RuleTag::Internet)),
        outbound(65_500, "DenyAllOutBound", Access::Deny, any.clone(), any),
    ]
}
