//! Rules of resources' firewalls: those that mean nothing, and those that an endpoint makes mean nothing.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Advisor, Kind, listed, same_service};
use crate::model::network::{Access, Firewall, Nic, Resource, Service, Subnet, SubnetRef};
use crate::model::places::Object;
use crate::model::services::{ACTIVE_DIRECTORY, SQL, STORAGE, STORAGE_GLOBAL};
use crate::plan::NextHop;
use crate::plan::policies::Policies;
use crate::plan::resolve::{Owner, Target};
use crate::snapshot::EndpointScope;

/// Appliances that are followed one after the other, so that routes in a circle come to an end.
const MOST_APPLIANCES: usize = 4;

/// The public addresses that a subnet's traffic to a resource has where no endpoint takes it.
#[derive(Default)]
struct Presented {
    addresses: Vec<Ipv4Addr>,
    /// It leaves through an on-premises site whose address the document does not tell.
    by_unknown_site: bool,
}

/// A resource with its firewall.
#[derive(Clone, Copy)]
struct Guarded<'n> {
    service_index: usize,
    service: &'n Service,
    resource_index: usize,
    resource: &'n Resource,
    firewall: &'n Firewall,
}

impl Guarded<'_> {
    /// Whether the rules decide who comes in.
    fn asks_rules(&self) -> bool {
        self.firewall.default_action == Access::Deny && self.firewall.public_network_access
    }
}

impl<'p> Advisor<'p> {
    /// Everything about firewalls.
    pub(super) fn firewalls(&mut self) {
        let policies = Policies::new(self.network);
        for guarded in self.guarded() {
            self.rules_without_deny(guarded);
            for rule in 0..guarded.firewall.virtual_network_rules.len() {
                self.virtual_network_rule(guarded, rule, &policies);
            }
        }
        for (subnet, declared) in self.subnets() {
            self.dead_ip_rules(subnet, declared, &policies);
            self.ip_rules_in_danger(subnet, declared);
        }
    }

    fn guarded(&self) -> Vec<Guarded<'p>> {
        let services = self.network.services.iter().enumerate();
        let all = services.flat_map(|(service_index, service)| {
            service.resources.iter().enumerate().filter_map(move |(resource_index, resource)| {
                let firewall = resource.firewall.as_ref()?;
                Some(Guarded { service_index, service, resource_index, resource, firewall })
            })
        });
        all.collect()
    }

    fn rules_without_deny(&mut self, guarded: Guarded<'_>) {
        let Guarded { service_index: service, resource_index: resource, firewall, .. } = guarded;
        let has_rules = !firewall.virtual_network_rules.is_empty() || !firewall.ip_rules.is_empty();
        if !has_rules || firewall.default_action == Access::Deny || !firewall.public_network_access {
            return;
        }
        self.add(
            Object::Firewall { service, resource },
            Kind::RulesWithoutDeny,
            format!("the firewall of `{}` admits everybody: its rules mean nothing", guarded.resource.name),
            "rules are ignored while the default action is Allow, which it is unless something else is written \
             (Azure, \"Configure Azure Storage firewalls and virtual networks\")",
            "write default_action = \"Deny\", or remove the rules".to_owned(),
        );
    }

    fn virtual_network_rule(&mut self, guarded: Guarded<'_>, index: usize, policies: &Policies<'_>) {
        let Guarded { service_index: service, service: declared, resource_index: resource, .. } = guarded;
        let name = &guarded.resource.name;
        let rule = &guarded.firewall.virtual_network_rules[index];
        let place = Object::VirtualNetworkRule { service, resource, rule: index };
        let Some(subnet) = rule.subnet else {
            self.add(
                place,
                Kind::StaleSubnet,
                format!("the rule of `{name}` for `{}` admits nobody: there is no such subnet", rule.name),
                "a rule is for the subnet that had the name when the rule was made, not for the name: making a subnet \
                 with that name again does not help (Azure: state NetworkSourceDeleted, \"Configure Azure Storage \
                 firewalls and virtual networks\")",
                "remove the rule, and where the subnet is made again, put the rule in force once more after it"
                    .to_owned(),
            );
            return;
        };
        if !guarded.asks_rules() || !self.subnets().any(|(known, _)| known == subnet) {
            return;
        }
        let shown = self.network.subnet_name(subnet);
        let own = self.network.subnet(subnet);
        let service_name = &declared.service;
        let Some(endpoint) = self.endpoint_for(own, service_name) else {
            if !rule.ignore_missing_endpoint {
                self.add(
                    place,
                    Kind::RuleWithoutEndpoint,
                    format!(
                        "the rule of `{name}` for `{shown}` admits nobody: the subnet has no endpoint for \
                         `{service_name}`"
                    ),
                    "a rule admits the identity that an endpoint gives; without one, the traffic comes from a public \
                     address, which IP rules are for (Azure, \"Virtual Network service endpoints\")",
                    format!(
                        "add {{ service = \"{service_name}\" }} to the service_endpoints of `{shown}`; if it comes \
                         later, write ignore_missing_endpoint = true in the rule"
                    ),
                );
            }
            return;
        };
        let scopes = policies.scopes(subnet);
        let Some(scope) = scopes.get(endpoint).filter(|scope| !scope.identifies_at(&declared.location)) else { return };
        self.add(
            place,
            Kind::RuleOutOfRegion,
            format!(
                "the rule of `{name}` for `{shown}` admits nobody: `{name}` is in `{}`, and the subnet's endpoint for \
                 `{}` counts in {}",
                declared.location,
                scope.service,
                regions(scope)
            ),
            "a regional endpoint gives an identity to resources of its own region, for Azure Storage also of the paired \
             one (Azure, \"Virtual Network service endpoints\")",
            self.out_of_region(own, endpoint, &declared.location),
        );
    }

    /// What gives the resources of a region an identity to see.
    fn out_of_region(&self, subnet: &Subnet, endpoint: usize, location: &str) -> String {
        let endpoint = &subnet.service_endpoints[endpoint];
        match endpoint.service.as_str() {
            SQL | ACTIVE_DIRECTORY => format!("a subnet of a virtual network in `{location}` can have access"),
            STORAGE => format!("make it an endpoint for `{STORAGE_GLOBAL}`, which counts in every region"),
            _ => format!("add \"{location}\" to the endpoint's locations, or leave them out"),
        }
    }

    /// Resources whose IP rules an endpoint of a subnet has made useless to the subnet.
    fn dead_ip_rules(&mut self, subnet: SubnetRef, declared: &Subnet, policies: &Policies<'_>) {
        let scopes = policies.scopes(subnet);
        let shown = self.network.subnet_name(subnet);
        for (index, endpoint) in declared.service_endpoints.iter().enumerate() {
            let mut hit = Vec::new();
            let mut ways = Vec::new();
            let mut ruled = Vec::new();
            for guarded in self.guarded() {
                let Guarded { service, resource, firewall, .. } = guarded;
                let identified = scopes.get(index).is_some_and(|scope| scope.identifies_at(&service.location));
                let has_rule = firewall.virtual_network_rules.iter().any(|rule| rule.subnet == Some(subnet));
                if !same_service(&service.service, &endpoint.service) || has_rule && identified {
                    continue;
                }
                let taken = v4(service).find(|address| self.takes_endpoint(subnet, index, (*address).into()));
                let Some(rules) = taken.and_then(|address| self.useful_rules(subnet, guarded, address, true)) else {
                    continue;
                };
                hit.push(shown_rules(&resource.name, &rules));
                if !identified {
                    let way = self.out_of_region(declared, index, &service.location);
                    ways.push(format!("for `{}` in `{}`, {way}", resource.name, service.location));
                }
                if !has_rule {
                    ruled.push(resource.name.clone());
                }
            }
            if hit.is_empty() {
                continue;
            }
            if !ruled.is_empty() {
                let way = format!("add {{ subnet = \"{shown}\" }} to the virtual_network_rules of {}", listed(ruled));
                ways.insert(0, way);
            }
            let moved = if endpoint.service == SQL { MOVED_BY_SQL } else { "" };
            self.add(
                Object::Endpoint(subnet, index),
                Kind::DeadIpRules,
                format!(
                    "the endpoint of `{shown}` for `{}` takes the subnet past the IP rules that would admit it: denied at \
                     {}{moved}",
                    endpoint.service,
                    hit.join(", ")
                ),
                WHY_DEAD,
                ways.join("; "),
            );
        }
    }

    /// Resources whose IP rules admit a subnet in a forced tunnel now, and would not once it has an endpoint.
    fn ip_rules_in_danger(&mut self, subnet: SubnetRef, declared: &Subnet) {
        let shown = self.network.subnet_name(subnet);
        let home = &self.network.virtual_networks[subnet.virtual_network].location;
        let mut hit: Vec<(&str, Vec<String>, Vec<String>)> = Vec::new();
        for guarded in self.guarded() {
            let Guarded { service, resource, firewall, .. } = guarded;
            let kind = if service.service == STORAGE_GLOBAL { STORAGE } else { service.service.as_str() };
            let has_rule = firewall.virtual_network_rules.iter().any(|rule| rule.subnet == Some(subnet));
            let reaches = kind != SQL || service.location == *home;
            if has_rule || !reaches || self.endpoint_for(declared, kind).is_some() {
                continue;
            }
            let tunnelled = v4(service).find(|address| {
                let route = self.route(subnet, (*address).into(), false);
                route.is_some_and(|route| matches!(route.next_hop, NextHop::Gateway | NextHop::Appliance(_)))
            });
            let Some(rules) = tunnelled.and_then(|address| self.useful_rules(subnet, guarded, address, false)) else {
                continue;
            };
            let (name, text) = (resource.name.clone(), shown_rules(&resource.name, &rules));
            match hit.iter_mut().find(|(known, ..)| *known == kind) {
                Some((_, names, texts)) => {
                    names.push(name);
                    texts.push(text);
                }
                None => hit.push((kind, vec![name], vec![text])),
            }
        }
        for (kind, names, texts) in hit {
            let moved = if kind == SQL { MOVED_BY_SQL } else { "" };
            self.add(
                Object::Subnet(subnet),
                Kind::DeadIpRules,
                format!(
                    "an endpoint of `{shown}` for `{kind}` would take the subnet past the IP rules that admit it now: it \
                     would be denied at {}{moved}",
                    texts.join(", ")
                ),
                WHY_DEAD,
                format!(
                    "before the endpoint is on, add {{ subnet = \"{shown}\", ignore_missing_endpoint = true }} to the \
                     virtual_network_rules of {}",
                    listed(names)
                ),
            );
        }
    }

    /// The IP rules of a resource that admit what a subnet sends without an endpoint; none where there are none, where the
    /// firewall does not ask its rules, or where all NICs of the subnet come in by exceptions. With `guess`, rules that
    /// are for nobody of the document count as rules for a site of unknown address.
    fn useful_rules(
        &self,
        subnet: SubnetRef,
        guarded: Guarded<'_>,
        to: Ipv4Addr,
        guess: bool,
    ) -> Option<Vec<(Ipv4Net, bool)>> {
        let firewall = guarded.firewall;
        if !guarded.asks_rules() || firewall.ip_rules.is_empty() || self.all_excepted(subnet, firewall) {
            return None;
        }
        let presented = self.presented(subnet, None, to.into(), 0);
        let own: Vec<Ipv4Addr> = self.network.public_addresses().filter_map(only_v4).collect();
        let useful = |rule: &Ipv4Net| {
            if presented.addresses.iter().any(|address| rule.contains(address)) {
                return Some((*rule, true));
            }
            let may_be = guess && presented.by_unknown_site && !own.iter().any(|address| rule.contains(address));
            may_be.then_some((*rule, false))
        };
        let rules: Vec<_> = firewall.ip_rules.iter().filter_map(useful).collect();
        (!rules.is_empty()).then_some(rules)
    }

    fn all_excepted(&self, subnet: SubnetRef, firewall: &Firewall) -> bool {
        let excepted = |nic: &Nic| {
            let listed = |id: &String| firewall.resource_access_rules.iter().any(|rule| rule.eq_ignore_ascii_case(id));
            nic.trusted_service && firewall.bypass_azure_services || nic.resource_id.as_ref().is_some_and(listed)
        };
        let mut nics = self.network.nics.iter().filter(|nic| nic.subnet == subnet).peekable();
        nics.peek().is_some() && nics.all(excepted)
    }

    /// The public addresses of what a subnet, or one NIC of it, sends to an address without endpoints. Behind an appliance
    /// it is the appliance that presents itself.
    fn presented(&self, subnet: SubnetRef, nic: Option<&Nic>, to: IpAddr, appliances: usize) -> Presented {
        let network = self.network;
        let mut presented = Presented::default();
        let Some(route) = self.route(subnet, to, false) else { return presented };
        match route.next_hop {
            NextHop::Internet => {
                let declared = network.subnet(subnet);
                let gateway = declared.nat_gateway.map(|index| &network.nat_gateways[index].public_addresses);
                let gateway: Vec<_> = gateway.into_iter().flatten().copied().filter_map(only_v4).collect();
                if !gateway.is_empty() {
                    presented.addresses = gateway;
                    return presented;
                }
                let edge = network.internet.as_ref().filter(|_| declared.default_outbound_access);
                let default = || edge.iter().flat_map(|edge| &edge.public_addresses).copied().filter_map(only_v4);
                let nics: Vec<&Nic> = match nic {
                    Some(nic) => vec![nic],
                    None => network.nics.iter().filter(|nic| nic.subnet == subnet).collect(),
                };
                if nics.is_empty() {
                    presented.addresses.extend(default());
                }
                for nic in nics {
                    match nic.public_addresses.iter().copied().find_map(only_v4) {
                        Some(instance) => presented.addresses.push(instance),
                        None => presented.addresses.extend(default()),
                    }
                }
            }
            NextHop::Gateway => {
                let hosts = network.lab.iter().flat_map(|lab| &lab.hosts).flat_map(|host| &host.masquerade);
                presented.addresses.extend(hosts.copied().filter_map(only_v4));
                presented.by_unknown_site = presented.addresses.is_empty();
            }
            NextHop::Appliance(_) if appliances < MOST_APPLIANCES => {
                let owner = Owner::Network(subnet.virtual_network);
                let found = self.plan.resolver.resolve(network, owner, route.next_hop, Some(to));
                if let Ok(Target::Nic(index)) = found.map(|delivery| delivery.target) {
                    let appliance = &network.nics[index];
                    let taken = (0..network.subnet(appliance.subnet).service_endpoints.len())
                        .any(|endpoint| self.takes_endpoint(appliance.subnet, endpoint, to));
                    if !taken {
                        return self.presented(appliance.subnet, Some(appliance), to, appliances + 1);
                    }
                }
            }
            _ => {}
        }
        presented
    }
}

/// Why IP rules die.
const WHY_DEAD: &str = "over an endpoint a service sees the subnet's identity and a private address, which no IP rule \
                        admits, and an endpoint moves the traffic to every resource of the service at once (Azure, \
                        \"Virtual Network service endpoints\")";
/// What else an endpoint for Azure SQL moves.
const MOVED_BY_SQL: &str = "; it moves Azure Database for PostgreSQL, MySQL and MariaDB single servers as well";

fn v4(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    service.addresses.iter().copied().filter_map(only_v4)
}

fn only_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// `` `data` (203.0.113.10) ``; rules that are guessed to be useful are said to be.
fn shown_rules(resource: &str, rules: &[(Ipv4Net, bool)]) -> String {
    let text = |rule: &Ipv4Net| if rule.prefix_len() == 32 { rule.addr().to_string() } else { rule.to_string() };
    let rules_text: Vec<String> = rules.iter().map(|(rule, _)| text(rule)).collect();
    let guessed = if rules.iter().any(|(_, sure)| *sure) { "" } else { ", if that is the site's address" };
    format!("`{resource}` ({}{guessed})", rules_text.join(", "))
}

/// The regions where an endpoint counts.
fn regions(scope: &EndpointScope) -> String {
    match &scope.regions {
        Some(regions) => format!("{} only", listed(regions.iter().cloned())),
        None => "every region".to_owned(),
    }
}
