//! Advice on a good network: what it means that its author may not have meant. Every piece is about what users of service
//! endpoints are known to trip over, says why it is so and how to get out of it.
//!
//! Nothing here decides anything: routes are the effective ones, rules of groups are asked as packets ask them, and whom an
//! endpoint's identity reaches is what the packet path knows. What cannot be said for sure is not said: an advice is true
//! of the document, even where its author meant it so.
//!
//! | file | about |
//! |---|---|
//! | `firewalls` | rules of resources' firewalls |
//! | `routes` | routes, endpoints and policies of subnets, public addresses of NICs |
//! | `groups` | network security groups |

mod firewalls;
mod groups;
mod routes;

use std::net::IpAddr;

use serde::Serialize;

use super::effective::gateway_subnet;
use super::select::{Kind as RouteKind, select};
use super::table::RouteState;
use super::{NextHop, Plan, Route};
use crate::model::network::{EndpointProtocols, Network, Subnet, SubnetRef};
use crate::model::places::{Object, Places};
use crate::model::services::endpoint_service;

/// IP protocol number of TCP (IANA, "Assigned Internet Protocol Numbers").
const TCP: u8 = 6;
/// The same of ICMP.
const ICMP: u8 = 1;

/// What an advice is about. The names stay: scripts may look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IP rules that admit a subnet no more, or will not once it has the endpoint.
    DeadIpRules,
    /// A storage endpoint without policy on a subnet whose other traffic has to pass an appliance or the gateway.
    EndpointWithoutPolicy,
    /// A group that denies the internet and so the endpoint.
    DenyInternetWithoutTag,
    /// A virtual network rule for a subnet without the endpoint.
    RuleWithoutEndpoint,
    /// A virtual network rule of a resource that the endpoint's identity does not reach.
    RuleOutOfRegion,
    /// A virtual network rule whose subnet is gone.
    StaleSubnet,
    /// Endpoints that do not steer ICMP.
    PingAsProbe,
    /// A public address whose replies leave elsewhere.
    AsymmetricInbound,
    /// Rules that a default action of Allow makes meaningless.
    RulesWithoutDeny,
    /// A policy on a subnet without a storage endpoint.
    PolicyWithoutEndpoint,
    /// A user route that an endpoint leaves nothing to do.
    RouteShadowedByEndpoint,
    /// An endpoint that loses traffic to a user route.
    EndpointShadowedByRoute,
    /// Azure SQL's first port allowed, and not those that it redirects to.
    SqlRedirectPorts,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::DeadIpRules,
        Self::EndpointWithoutPolicy,
        Self::DenyInternetWithoutTag,
        Self::RuleWithoutEndpoint,
        Self::RuleOutOfRegion,
        Self::StaleSubnet,
        Self::PingAsProbe,
        Self::AsymmetricInbound,
        Self::RulesWithoutDeny,
        Self::PolicyWithoutEndpoint,
        Self::RouteShadowedByEndpoint,
        Self::EndpointShadowedByRoute,
        Self::SqlRedirectPorts,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadIpRules => "dead-ip-rules",
            Self::EndpointWithoutPolicy => "endpoint-without-policy",
            Self::DenyInternetWithoutTag => "deny-internet-without-tag",
            Self::RuleWithoutEndpoint => "rule-without-endpoint",
            Self::RuleOutOfRegion => "rule-out-of-region",
            Self::StaleSubnet => "stale-subnet",
            Self::PingAsProbe => "ping-as-probe",
            Self::AsymmetricInbound => "asymmetric-inbound",
            Self::RulesWithoutDeny => "rules-without-deny",
            Self::PolicyWithoutEndpoint => "policy-without-endpoint",
            Self::RouteShadowedByEndpoint => "route-shadowed-by-endpoint",
            Self::EndpointShadowedByRoute => "endpoint-shadowed-by-route",
            Self::SqlRedirectPorts => "sql-redirect-ports",
        }
    }
}

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Advice {
    /// Line of the document, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// [`Kind::name`].
    pub name: &'static str,
    /// What it is, naming the objects.
    pub message: String,
    /// Why it is so, with the page of Azure that says it.
    pub reason: String,
    /// What to do about it.
    pub way_out: String,
}

/// How many virtual network rules of a network name a subnet that is gone: the advice that is never left unsaid, because
/// such a document is taken as it is.
pub fn stale_rules(network: &Network) -> usize {
    let firewalls = network.services.iter().flat_map(|service| &service.resources);
    let rules = firewalls.filter_map(|resource| resource.firewall.as_ref());
    rules.flat_map(|firewall| &firewall.virtual_network_rules).filter(|rule| rule.subnet.is_none()).count()
}

impl Plan {
    /// Every advice on the network, sorted by place. `places` are those of its document.
    pub fn advice(&self, places: &Places<'_>) -> Vec<Advice> {
        let mut advisor = Advisor { plan: self, network: self.network(), places, found: Vec::new() };
        advisor.firewalls();
        advisor.routes();
        advisor.groups();
        let mut found = advisor.found;
        found.sort();
        found.dedup();
        found
    }
}

/// Looks for what there is to say.
struct Advisor<'p> {
    plan: &'p Plan,
    network: &'p Network,
    places: &'p Places<'p>,
    found: Vec<Advice>,
}

impl<'p> Advisor<'p> {
    fn add(&mut self, object: Object, kind: Kind, message: String, reason: &str, way_out: String) {
        let (line, column) = self.places.of(object);
        self.found.push(Advice { line, column, name: kind.name(), message, reason: reason.to_owned(), way_out });
    }

    /// Every subnet but the gateway's, where endpoints and identities mean nothing.
    fn subnets(&self) -> impl Iterator<Item = (SubnetRef, &'p Subnet)> + use<'p> {
        let (network, gateway) = (self.network, gateway_subnet(self.network));
        let all = self.plan.subnets.iter().map(|(subnet, _)| *subnet);
        all.filter(move |subnet| Some(*subnet) != gateway).map(|subnet| (subnet, network.subnet(subnet)))
    }

    /// The route that a packet from a subnet takes; `steered` says whether endpoints steer it.
    fn route(&self, subnet: SubnetRef, destination: IpAddr, steered: bool) -> Option<&'p Route> {
        let table = self.plan.table(subnet)?;
        let candidates = table.matching_address(destination);
        let winner = select(&candidates, self.plan.rules(steered), |_, _| {})?;
        table.routes.get(candidates.get(winner)?.route as usize)
    }

    /// Whether TCP from a subnet to an address takes an endpoint of the subnet.
    fn takes_endpoint(&self, subnet: SubnetRef, endpoint: usize, destination: IpAddr) -> bool {
        let steered = self.network.semantics.endpoint_protocols.steers(TCP);
        let route = self.route(subnet, destination, steered);
        route.is_some_and(|route| matches!(route.next_hop, NextHop::Endpoint(found) if usize::from(found) == endpoint))
    }

    /// The addresses of a subnet's endpoint: those of the document's resources behind it; if there are none, the first of
    /// each prefix.
    fn behind(&self, subnet: SubnetRef, endpoint: usize) -> Vec<IpAddr> {
        let services = self.network.services.iter().flat_map(|service| &service.addresses).copied();
        let known: Vec<IpAddr> = services.filter(|address| self.takes_endpoint(subnet, endpoint, *address)).collect();
        if !known.is_empty() {
            return known;
        }
        let routes = self.plan.table(subnet).map(|table| table.routes.as_slice()).unwrap_or_default();
        let is_it =
            |route: &&Route| matches!(route.next_hop, NextHop::Endpoint(found) if usize::from(found) == endpoint);
        let prefixes = routes.iter().filter(is_it).flat_map(|route| route.prefixes.iter());
        prefixes.map(|prefix| prefix.network()).collect()
    }

    /// Where a subnet sends what no other route of a family matches.
    fn default_route(&self, subnet: SubnetRef, v4: bool) -> Option<&'p Route> {
        let routes = self.plan.effective_routes(subnet);
        let is_default = |route: &Route| {
            route.prefixes.iter().any(|prefix| prefix.prefix_len() == 0 && prefix.addr().is_ipv4() == v4)
        };
        routes
            .iter()
            .find(|route| route.state == RouteState::Active && is_default(&route.route))
            .map(|found| &found.route)
    }

    /// Whether an endpoint of a subnet is for the service of a resource: the two endpoints of Azure Storage are for one.
    fn endpoint_for(&self, subnet: &Subnet, service: &str) -> Option<usize> {
        subnet.service_endpoints.iter().position(|endpoint| same_service(&endpoint.service, service))
    }

    /// Whether endpoints steer TCP and not ICMP.
    fn ping_goes_elsewhere(&self) -> bool {
        let protocols = &self.network.semantics.endpoint_protocols;
        *protocols != EndpointProtocols::Any && protocols.steers(TCP) && !protocols.steers(ICMP)
    }
}

/// Whether the resources of two services are the same.
fn same_service(one: &str, other: &str) -> bool {
    let tags = |name| endpoint_service(name).map(|service| service.tags);
    tags(one).is_some() && tags(one) == tags(other)
}

/// Where a route leads, for people: ``the virtual network gateway (route `default`)``.
fn lead(route: &Route) -> String {
    let to = match route.next_hop {
        NextHop::VnetLocal => "the virtual network itself".to_owned(),
        NextHop::Peering(_) => "a peered network".to_owned(),
        NextHop::Gateway => "the virtual network gateway".to_owned(),
        NextHop::Endpoint(_) => "the backbone".to_owned(),
        NextHop::Internet => "the internet".to_owned(),
        NextHop::Appliance(address) => format!("the appliance {address}"),
        NextHop::None => "nowhere".to_owned(),
    };
    let prefix = route.prefixes.first().map(ToString::to_string).unwrap_or_default();
    match (route.kind, &route.name) {
        (RouteKind::User { .. }, Some(name)) => format!("{to} (route `{name}`)"),
        (RouteKind::Learned, _) => format!("{to} (learned {prefix})"),
        _ => format!("{to} (system route {prefix})"),
    }
}

/// `` `a`, `b` and `c` ``.
fn listed(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match (names.pop(), names.is_empty()) {
        (Some(last), false) => format!("{} and {last}", names.join(", ")),
        (Some(last), true) => last,
        (None, _) => String::new(),
    }
}
