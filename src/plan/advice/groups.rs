//! Network security groups that keep a subnet from its endpoints. They are asked as packets ask them, for every NIC of the
//! subnet; for a subnet without any, for its first address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Advisor, Kind, TCP};
use crate::model::network::{Subnet, SubnetRef};
use crate::model::places::Object;
use crate::model::services::{SQL, endpoint_service};
use crate::plan::nsg::PlannedRule;
use crate::snapshot::{Access, Nsg};
use crate::table::classifier::{Addresses, Classes};

/// The port of services but Azure SQL.
const HTTPS: u16 = 443;
/// The port of Azure SQL's gateway.
const SQL_GATEWAY: u16 = 1433;
/// The first and last port of the nodes that it redirects to.
const SQL_NODES: [u16; 2] = [11_000, 11_999];
/// A port that clients may have (RFC 6335 section 6).
const CLIENT: u16 = 49_152;
/// Addresses at the start of a prefix that Azure keeps.
const RESERVED: u128 = 4;
/// The lowest priority number of a rule.
const FIRST_PRIORITY: u16 = 100;

/// Who sends: addresses, and the groups that it meets, its own before its subnet's.
struct Sender {
    nic: Option<usize>,
    addresses: Vec<IpAddr>,
    groups: Vec<usize>,
}

/// The rule that decided in a group.
struct Ruling<'p> {
    group: usize,
    rule: &'p PlannedRule,
}

/// Compiled groups.
struct Compiled {
    nsgs: Vec<Nsg>,
    classes: Classes,
}

/// A rule of the document that is in somebody's way, with the service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Group and rule in the document.
    rule: (usize, usize),
    subnet: SubnetRef,
    service: String,
    kind: Kind,
}

impl<'p> Advisor<'p> {
    /// Everything about groups.
    pub(super) fn groups(&mut self) {
        // More groups than there are numbers: no node runs this, and compiling says so.
        let Ok((nsgs, classes)) = self.plan.groups.compile() else { return };
        let compiled = Compiled { nsgs, classes };
        let mut found: BTreeMap<Finding, Vec<Option<usize>>> = BTreeMap::new();
        for (subnet, declared) in self.subnets() {
            let senders = self.senders(subnet, declared);
            for (index, endpoint) in declared.service_endpoints.iter().enumerate() {
                let behind = self.behind(subnet, index);
                for sender in senders.iter().filter(|sender| !sender.groups.is_empty()) {
                    let rules = self.in_the_way(&compiled, sender, &behind, &endpoint.service);
                    for (kind, ruling) in rules {
                        let Some(rule) = self.written(&ruling) else { continue };
                        let service = endpoint.service.clone();
                        found.entry(Finding { rule, subnet, service, kind }).or_default().push(sender.nic);
                    }
                }
            }
            // What all NICs meet is about the subnet.
            let all = senders.len();
            for (_, nics) in found.iter_mut().filter(|(finding, _)| finding.subnet == subnet) {
                if nics.len() == all {
                    *nics = vec![None];
                }
            }
        }
        for (finding, nics) in found {
            self.tell(&finding, &nics);
        }
    }

    fn senders(&self, subnet: SubnetRef, declared: &Subnet) -> Vec<Sender> {
        let groups = &self.plan.groups;
        let nics = self.network.nics.iter().enumerate().filter(|(_, nic)| nic.subnet == subnet);
        let nics = nics.map(|(index, nic)| {
            let [of_subnet, own] = groups.nics.get(index).copied().unwrap_or_default();
            let addresses = nic.private_addresses.clone();
            Sender { nic: Some(index), addresses, groups: own.into_iter().chain(of_subnet).collect() }
        });
        let senders: Vec<Sender> = nics.collect();
        if !senders.is_empty() {
            return senders;
        }
        let addresses = declared.address_prefixes.iter().map(first_address).collect();
        vec![Sender { nic: None, addresses, groups: groups.subnets.get(&subnet).copied().into_iter().collect() }]
    }

    /// The rules that keep a sender from a service.
    fn in_the_way(
        &self,
        compiled: &Compiled,
        sender: &Sender,
        behind: &[IpAddr],
        service: &str,
    ) -> Vec<(Kind, Ruling<'p>)> {
        let pairs: Vec<(IpAddr, IpAddr)> = behind
            .iter()
            .filter_map(|to| Some((*sender.addresses.iter().find(|from| from.is_ipv4() == to.is_ipv4())?, *to)))
            .collect();
        let port = if service == SQL { SQL_GATEWAY } else { HTTPS };
        let denying = |port| -> Option<Vec<Ruling<'p>>> {
            let all = pairs.iter().map(|pair| self.denied(compiled, sender, *pair, port));
            // All or nothing: who allows a part of a service means that part.
            all.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
        };
        let mut found = Vec::new();
        if let Some(denied) = denying(port) {
            found.extend(
                denied
                    .into_iter()
                    .find(|ruling| is_internet(ruling.rule))
                    .map(|ruling| (Kind::DenyInternetWithoutTag, ruling)),
            );
        } else if service == SQL
            && let Some(denied) = SQL_NODES.iter().find_map(|port| denying(*port))
        {
            found.extend(
                denied
                    .into_iter()
                    .zip(&pairs)
                    .find_map(|(denial, pair)| {
                        // The rule that allows the first port is the one to be extended.
                        let allowing = self.ask(compiled, denial.group, *pair, SQL_GATEWAY)?;
                        let is_written = |ruling: &Ruling<'_>| self.written(ruling).is_some();
                        Some(if is_written(&allowing) { allowing } else { denial })
                    })
                    .map(|ruling| (Kind::SqlRedirectPorts, ruling)),
            );
        }
        found
    }

    /// The rule that denies a sender a connection.
    fn denied(&self, compiled: &Compiled, sender: &Sender, pair: (IpAddr, IpAddr), port: u16) -> Option<Ruling<'p>> {
        let asked = sender.groups.iter().filter_map(|group| self.ask(compiled, *group, pair, port));
        let mut denials = asked.filter(|ruling| ruling.rule.info.access == Access::Deny);
        denials.next()
    }

    /// The first rule of a group that matches a connection.
    fn ask(&self, compiled: &Compiled, group: usize, (from, to): (IpAddr, IpAddr), port: u16) -> Option<Ruling<'p>> {
        let rules = &compiled.nsgs.get(group)?.outbound.classifier;
        let classes = &compiled.classes;
        let index = rules.first_match(classes.of(from), classes.of(to), TCP, Some((CLIENT, port)))?;
        let rule = self.plan.groups.outbound_rule(group, index)?;
        Some(Ruling { group, rule })
    }

    /// Group and rule in the document; none for default rules.
    fn written(&self, ruling: &Ruling<'_>) -> Option<(usize, usize)> {
        let name = ruling.rule.info.name.strip_prefix("securityRules/")?;
        let of = self.plan.groups.name(ruling.group)?;
        let groups = &self.network.network_security_groups;
        let group = groups.iter().position(|group| group.name == of)?;
        let rule = groups[group].security_rules.iter().position(|rule| rule.name == name)?;
        Some((group, rule))
    }

    fn tell(&mut self, finding: &Finding, nics: &[Option<usize>]) {
        let (group, rule) = finding.rule;
        let declared = &self.network.network_security_groups[group];
        let (group_name, written) = (&declared.name, &declared.security_rules[rule]);
        let subnet = self.network.subnet_name(finding.subnet);
        let names = nics.iter().flatten().map(|nic| self.network.nics[*nic].name.clone());
        let who = match super::listed(names) {
            names if names.is_empty() => format!("`{subnet}`"),
            names => format!("{names} of `{subnet}`"),
        };
        let service = &finding.service;
        let place = Object::SecurityRule { group, rule };
        if finding.kind == Kind::SqlRedirectPorts {
            self.add(
                place,
                finding.kind,
                format!(
                    "the rule `{}` of `{group_name}` lets {who} begin with Azure SQL at port 1433 and not go on: 11000-11999 \
                     are denied",
                    written.name
                ),
                "inside Azure a server redirects its clients to a node at one of these ports, unless its connection \
                 policy is Proxy (Azure, \"Azure SQL connectivity architecture\")",
                format!("allow TCP 11000-11999 to the service tag `Sql` in `{group_name}` as well"),
            );
            return;
        }
        let tags = endpoint_service(service).map(|service| service.tags.join("` and `")).unwrap_or_default();
        let port = if service == SQL { SQL_GATEWAY } else { HTTPS };
        let before = if written.priority > FIRST_PRIORITY {
            format!("with a priority below {}", written.priority)
        } else {
            format!("before it, which needs `{}` to have a priority above {FIRST_PRIORITY}", written.name)
        };
        self.add(
            place,
            finding.kind,
            format!(
                "the rule `{}` of `{group_name}` keeps {who} from the endpoint for `{service}`: TCP {port} to it is denied",
                written.name
            ),
            "groups know nothing of endpoints: the addresses of a service are part of Internet, and of no other tag but \
             the service's own (Azure, \"Virtual Network service endpoints\")",
            format!("add an outbound rule to `{group_name}` that allows TCP {port} to the service tag `{tags}`, {before}"),
        );
    }
}

/// Whether a rule is about the internet as a whole, or about everything.
fn is_internet(rule: &PlannedRule) -> bool {
    let side = &rule.destination;
    let by_tag = side.tag.as_ref().is_some_and(|(name, _)| name == "Internet");
    side.addresses == Addresses::Any || by_tag || side.prefixes.iter().any(|prefix| prefix.prefix_len() == 0)
}

/// The first address of a subnet's prefix that a NIC may have.
fn first_address(prefix: &IpNet) -> IpAddr {
    match prefix.network() {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() + RESERVED as u32).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() + RESERVED).into()),
    }
}
