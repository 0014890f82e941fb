//! Answers for people: the effective routes of a subnet and the next hop of a destination, each route with the reason
//! why it lost. The answers are data, so that they can be given over the control socket and shown alike.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::effective::{NextHop, Route};
use super::select::{Candidate, Kind, select};
use super::table::{EffectiveRoute, Overridden};
use crate::model::network::{EndpointProtocols, EndpointSource, Network, SubnetRef};
use crate::snapshot::Unroutable;

/// What Azure's Network Watcher calls the route table of routes that no user wrote.
const SYSTEM_ROUTE: &str = "System Route";

/// The effective routes of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesAnswer {
    /// The subnet: `spoke/workload`.
    pub subnet: String,
    /// Its routes in their order.
    pub routes: Vec<RouteRow>,
}

/// A route in [`RoutesAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// What Azure's tools tell of it.
    pub route: AzureRoute,
    /// The service of an endpoint route.
    pub service: Option<String>,
    /// Why it, or some of its prefixes, lost.
    pub why: Vec<String>,
}

/// An effective route in the shape of `az network nic show-effective-route-table`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureRoute {
    /// Its prefixes; more than one for service tags and endpoints.
    pub address_prefix: Vec<String>,
    /// The service tag of a user route that has one.
    pub destination_service_tags: Vec<String>,
    /// Prefixes by service tag.
    pub tag_map: BTreeMap<String, Vec<String>>,
    /// Whether the subnet's route table stops propagation.
    pub disable_bgp_route_propagation: bool,
    /// Whether it beats BGP routes of any length; none does.
    pub has_bgp_override: bool,
    /// The name of a user route.
    pub name: Option<String>,
    /// The address of an appliance.
    pub next_hop_ip_address: Vec<String>,
    /// Where it leads.
    pub next_hop_type: String,
    /// `Default`, `User` or `VirtualNetworkGateway`.
    pub source: String,
    /// `Active`, or `Invalid` for a route that is overridden.
    pub state: String,
    /// Endpoint routes: how the traffic presents itself, as in [`source_text`]. Azure's tool has no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_source: Option<String>,
}

/// A page of effective routes, the whole of Azure's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureRoutes {
    /// Where the next page is: there is only one.
    pub next_link: Option<String>,
    /// The routes.
    pub value: Vec<AzureRoute>,
}

impl RoutesAnswer {
    /// The answer as Azure's tool gives it.
    pub fn azure(&self) -> AzureRoutes {
        AzureRoutes { next_link: None, value: self.routes.iter().map(|row| row.route.clone()).collect() }
    }
}

/// The next hop of a destination. The first three fields are those of `az network watcher show-next-hop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHopAnswer {
    /// Where the winning route leads; `None` also where no route matches.
    pub next_hop_type: String,
    /// The appliance's address, else empty.
    pub next_hop_ip_address: String,
    /// The name of the route table of a user route, else `System Route`.
    pub route_table_id: String,
    /// The subnet that was asked about: `spoke/workload`.
    pub from: String,
    /// The destination.
    pub to: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// The route that won, none where no route matches.
    pub route: Option<RouteChoice>,
    /// The port that the packet leaves by: the name of a NIC or service, `gateway`, `internet` or `backbone`.
    pub port: Option<String>,
    /// Why there is no such port.
    pub unroutable: Option<String>,
    /// The other routes that match, each with the reason why it lost.
    pub candidates: Vec<LostCandidate>,
}

/// A route that matches a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteChoice {
    /// `Default`, `User` or `VirtualNetworkGateway`.
    pub source: String,
    /// The name of a user route.
    pub name: Option<String>,
    /// The service of an endpoint route.
    pub service: Option<String>,
    /// How the traffic of an endpoint route presents itself, as in [`source_text`].
    pub endpoint_source: Option<String>,
    /// The service tag of a user route that has one.
    pub service_tag: Option<String>,
    /// The longest of its prefixes that contains the destination.
    pub address_prefix: String,
    /// Where it leads.
    pub next_hop_type: String,
    /// The appliance's address, else empty.
    pub next_hop_ip_address: String,
}

/// A route that matches and lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCandidate {
    /// The route.
    #[serde(flatten)]
    pub route: RouteChoice,
    /// Why it lost.
    pub reason: String,
}

impl Plan {
    /// The effective routes of a subnet, to be shown.
    ///
    /// # Panics
    /// If the subnet is not of this plan's network.
    pub fn routes_answer(&self, subnet: SubnetRef) -> RoutesAnswer {
        let network = self.network();
        let table = network.subnet(subnet).route_table.map(|table| &network.route_tables[table]);
        let no_propagation = table.is_some_and(|table| table.disable_bgp_route_propagation);
        let routes = self.effective_routes(subnet);
        let row = |effective: &EffectiveRoute| RouteRow {
            route: AzureRoute {
                endpoint_source: self.endpoint_source(subnet, &effective.route),
                ..azure_route(effective, no_propagation)
            },
            service: service(&effective.route),
            why: effective.overridden.iter().map(|lost| self.why(routes, effective, lost)).collect(),
        };
        RoutesAnswer { subnet: network.subnet_name(subnet), routes: routes.iter().map(row).collect() }
    }

    /// The next hop of a destination for packets of an IP protocol that come from a NIC of a subnet.
    ///
    /// # Panics
    /// If the subnet is not of this plan's network.
    pub fn next_hop(&self, subnet: SubnetRef, destination: IpAddr, protocol: u8) -> NextHopAnswer {
        let network = self.network();
        let mut answer = NextHopAnswer {
            next_hop_type: "None".to_owned(),
            next_hop_ip_address: String::new(),
            route_table_id: SYSTEM_ROUTE.to_owned(),
            from: network.subnet_name(subnet),
            to: destination,
            protocol,
            route: None,
            port: None,
            unroutable: Some(unroutable_text(Unroutable::NoRoute).to_owned()),
            candidates: Vec::new(),
        };
        let Some(table) = self.table(subnet) else { return answer };
        let candidates = table.matching_address(destination);
        let rules = self.rules(network.semantics.endpoint_protocols.steers(protocol));
        let mut lost = Vec::new();
        let winner = select(&candidates, rules, |index, loss| lost.push((index, loss)));
        let route_of = |candidate: &Candidate| &table.routes[candidate.route as usize];
        let choice = |candidate: &Candidate| {
            let route = route_of(candidate);
            let endpoint_source = self.endpoint_source(subnet, route);
            RouteChoice { endpoint_source, ..choice(route, candidate.length, destination) }
        };
        let winner = winner.map(|winner| &candidates[winner]);
        if let Some(candidate) = winner {
            let route = route_of(candidate);
            let choice = choice(candidate);
            answer.next_hop_type = choice.next_hop_type.clone();
            answer.next_hop_ip_address = choice.next_hop_ip_address.clone();
            answer.route = Some(choice);
            let declared = network.subnet(subnet).route_table.map(|table| &network.route_tables[table]);
            if let (Kind::User { .. }, Some(declared)) = (route.kind, declared) {
                answer.route_table_id = declared.name.clone();
            }
            match self.resolver.resolve(network, table.owner, route.next_hop, Some(destination)) {
                Ok(delivery) => {
                    answer.port = Some(self.port_name(delivery.target).to_owned());
                    answer.unroutable = None;
                }
                Err(unroutable) => answer.unroutable = Some(unroutable_text(unroutable).to_owned()),
            }
        }
        let winner = winner.map(|candidate| called(route_of(candidate))).unwrap_or_default();
        let lost = lost.into_iter().map(|(index, loss)| {
            let candidate = &candidates[index];
            LostCandidate { route: choice(candidate), reason: loss.text(&winner) }
        });
        answer.candidates = lost.collect();
        answer
    }

    /// How an endpoint route of a subnet presents its traffic.
    fn endpoint_source(&self, subnet: SubnetRef, route: &Route) -> Option<String> {
        let NextHop::Endpoint(number) = route.next_hop else { return None };
        let endpoint = self.network().subnet(subnet).service_endpoints.get(usize::from(number))?;
        Some(source_text(self.network(), &endpoint.source))
    }

    /// One reason why a route of a table lost, with how many of its prefixes and for which protocols.
    fn why(&self, routes: &[EffectiveRoute], effective: &EffectiveRoute, lost: &Overridden) -> String {
        let winner = lost.by.and_then(|by| routes.get(by)).map(|winner| called(&winner.route)).unwrap_or_default();
        let reason = lost.loss.text(&winner);
        let steered = match (&self.network().semantics.endpoint_protocols, lost.steered) {
            (EndpointProtocols::Only(list), Some(steered)) => {
                let names: Vec<String> = list.iter().map(|protocol| protocol_name(*protocol)).collect();
                format!("{}{}: ", if steered { "" } else { "not " }, names.join(", "))
            }
            _ => String::new(),
        };
        let all = effective.route.prefixes.len();
        if all > 1 { format!("{steered}{} of {all} prefixes: {reason}", lost.prefixes) } else { steered + &reason }
    }
}

/// The name of an IP protocol, for the usual ones; else its number.
pub fn protocol_name(protocol: u8) -> String {
    match PROTOCOLS.iter().find(|(_, number)| *number == protocol) {
        Some((name, _)) => (*name).to_owned(),
        None => protocol.to_string(),
    }
}

/// The number of an IP protocol from its name, in any case, or from the number itself.
pub fn protocol_number(name: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, number)| *number).or_else(|| name.parse().ok())
}

/// IP protocols by name (IANA, "Assigned Internet Protocol Numbers").
const PROTOCOLS: [(&str, u8); 8] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("gre", 47), ("esp", 50), ("ah", 51), ("sctp", 132)];

/// The source of an endpoint in words: `private`, `prefix_map 10.1.1.0/24 to 100.64.8.0/24`, `identity6`, `snat pool`.
pub fn source_text(network: &Network, source: &EndpointSource) -> String {
    match source {
        EndpointSource::Private => "private".to_owned(),
        EndpointSource::PrefixMap(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(from, to)| format!("{from} to {to}")).collect();
            format!("prefix_map {}", pairs.join(", "))
        }
        EndpointSource::Identity6 => "identity6".to_owned(),
        EndpointSource::Snat(pool) => format!("snat {}", network.snat_pools[*pool].name),
    }
}

/// Why a packet goes nowhere, in words.
pub fn unroutable_text(unroutable: Unroutable) -> &'static str {
    match unroutable {
        Unroutable::NoRoute => "no route matches",
        Unroutable::NextHopNone => "the next hop is None",
        Unroutable::AddressUnassigned => "no NIC has the address",
        Unroutable::NoGateway => "the network has no virtual network gateway, nor may it use a peer's",
        Unroutable::ApplianceUnreachable => "no NIC of this or a directly peered network has the appliance's address",
        Unroutable::ApplianceWithoutForwarding => "the appliance's NIC has no ip_forwarding",
        Unroutable::NoSuchResource => "no service of the document has the address, and there is no backbone",
        Unroutable::NoInternetEdge => "the document has no internet edge",
        Unroutable::NoDevice => "the port has no device",
    }
}

/// What a route is called in reasons.
fn called(route: &Route) -> String {
    let name = route.name.as_deref().unwrap_or_default();
    let prefix = route.prefixes.first().map(ToString::to_string).unwrap_or_default();
    match route.kind {
        Kind::User { .. } => format!("user route {name}"),
        Kind::Endpoint => format!("the {name} endpoint"),
        Kind::Learned => format!("learned route {prefix}"),
        _ => format!("system route {prefix} {}", route.next_hop.next_hop_type().name()),
    }
}

fn source(kind: Kind) -> &'static str {
    match kind {
        Kind::User { .. } => "User",
        Kind::Learned => "VirtualNetworkGateway",
        _ => "Default",
    }
}

/// The name of a user route.
fn user_name(route: &Route) -> Option<String> {
    route.name.clone().filter(|_| matches!(route.kind, Kind::User { .. }))
}

/// The service of an endpoint route.
fn service(route: &Route) -> Option<String> {
    route.name.clone().filter(|_| route.kind == Kind::Endpoint)
}

fn azure_route(effective: &EffectiveRoute, no_propagation: bool) -> AzureRoute {
    let route = &effective.route;
    let prefixes: Vec<String> = route.prefixes.iter().map(ToString::to_string).collect();
    AzureRoute {
        destination_service_tags: route.service_tag.iter().cloned().collect(),
        tag_map: route.service_tag.iter().map(|tag| (tag.clone(), prefixes.clone())).collect(),
        address_prefix: prefixes,
        disable_bgp_route_propagation: no_propagation,
        has_bgp_override: false,
        name: user_name(route),
        next_hop_ip_address: route.next_hop.address().iter().map(ToString::to_string).collect(),
        next_hop_type: route.next_hop.next_hop_type().name().to_owned(),
        source: source(route.kind).to_owned(),
        state: effective.state.name().to_owned(),
        endpoint_source: None,
    }
}

fn choice(route: &Route, length: u8, destination: IpAddr) -> RouteChoice {
    let matched = route.prefixes.iter().find(|prefix| prefix.prefix_len() == length && prefix.contains(&destination));
    RouteChoice {
        source: source(route.kind).to_owned(),
        name: user_name(route),
        service: service(route),
        endpoint_source: None,
        service_tag: route.service_tag.clone(),
        address_prefix: matched.map(ToString::to_string).unwrap_or_default(),
        next_hop_type: route.next_hop.next_hop_type().name().to_owned(),
        next_hop_ip_address: route.next_hop.address().map(|address| address.to_string()).unwrap_or_default(),
    }
}
