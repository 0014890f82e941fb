//! Routes, endpoints and policies of subnets, and public addresses of NICs.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{Advisor, Kind, RouteKind, lead, listed};
use crate::model::network::{EndpointPrecedence, EndpointProtocols, Subnet, SubnetRef};
use crate::model::places::Object;
use crate::plan::policies::is_storage;
use crate::plan::select::Loss;
use crate::plan::table::{EffectiveRoute, RouteState};
use crate::plan::{NextHop, Route};

/// A user route of a table that meets an endpoint: the routes by their indices in the table.
#[derive(Debug, Clone, Copy)]
struct Meeting {
    user: usize,
    endpoint: usize,
    endpoint_wins: bool,
}

/// What subnets that are told together have in common: a route of a route table, and what an endpoint has to do with it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    table: usize,
    route: usize,
    endpoint_wins: bool,
    service: String,
}

impl Advisor<'_> {
    /// Everything about routes.
    pub(super) fn routes(&mut self) {
        for (subnet, declared) in self.subnets() {
            self.policies(subnet, declared);
        }
        self.asymmetric_inbound();
        if self.ping_goes_elsewhere() {
            self.ping_as_probe();
        }
        self.shadowed();
    }

    fn policies(&mut self, subnet: SubnetRef, declared: &Subnet) {
        let shown = self.network.subnet_name(subnet);
        let endpoint = declared.service_endpoints.iter().position(|endpoint| is_storage(&endpoint.service));
        match (endpoint, declared.service_endpoint_policies.is_empty()) {
            (Some(endpoint), true) => {
                let defaults = [true, false].map(|v4| self.default_route(subnet, v4));
                let guarded = |route: &&Route| matches!(route.next_hop, NextHop::Appliance(_) | NextHop::Gateway);
                let Some(default) = defaults.into_iter().flatten().find(guarded) else { return };
                let service = &declared.service_endpoints[endpoint].service;
                self.add(
                    Object::Endpoint(subnet, endpoint),
                    Kind::EndpointWithoutPolicy,
                    format!(
                        "`{shown}` reaches every account of `{service}`, anybody's, past {}, which other traffic goes to",
                        lead(default)
                    ),
                    "an endpoint is for the service as a whole and bypasses what filters the default route, so data can \
                     leave to any account (Azure, \"Azure virtual network service endpoint policies for Azure Storage\")",
                    format!(
                        "give `{shown}` service_endpoint_policies that list the accounts it needs; with them the \
                         endpoint is one for all regions"
                    ),
                );
            }
            (None, false) => {
                let policies = declared.service_endpoint_policies.iter();
                let names = policies.map(|policy| self.network.service_endpoint_policies[*policy].name.clone());
                self.add(
                    Object::Policies(subnet),
                    Kind::PolicyWithoutEndpoint,
                    format!("{} restricts nothing in `{shown}`: it has no endpoint for Azure Storage", listed(names)),
                    "policies are asked about what goes over a storage endpoint, and about nothing else (Azure, \"Azure \
                     virtual network service endpoint policies for Azure Storage\")",
                    format!("add {{ service = \"Microsoft.Storage\" }} to the service_endpoints of `{shown}`"),
                );
            }
            _ => {}
        }
    }

    fn asymmetric_inbound(&mut self) {
        for (index, nic) in self.network.nics.iter().enumerate() {
            for (place, public) in nic.public_addresses.iter().enumerate() {
                let default = self.default_route(nic.subnet, public.is_ipv4());
                let Some(default) = default.filter(|route| route.next_hop != NextHop::Internet) else { continue };
                self.add(
                    Object::PublicAddress { nic: index, address: place },
                    Kind::AsymmetricInbound,
                    format!(
                        "who asks `{}` at {public} comes in from the internet, and in Azure the answer goes to {}",
                        nic.name,
                        lead(default)
                    ),
                    "Azure sends answers by the routes of the subnet, not back to where the question came from, and \
                     firewalls drop answers to what they have not seen (Azure, \"Virtual network traffic routing\"); \
                     this node decides both directions of a flow at once, and so does not show it",
                    "let the questions come in by the same way, through a public address in front of it, or give the \
                     prefixes of those who ask a route with next_hop_type = \"Internet\""
                        .to_owned(),
                );
            }
        }
    }

    fn ping_as_probe(&mut self) {
        let mut ways = Vec::new();
        for (subnet, declared) in self.subnets() {
            for (index, endpoint) in declared.service_endpoints.iter().enumerate() {
                let Some(to) = self.behind(subnet, index).first().copied() else { continue };
                let way = self.route(subnet, to, false).map_or_else(|| "nowhere (no route)".to_owned(), lead);
                let shown = self.network.subnet_name(subnet);
                ways.push(format!("from `{shown}` to {to} (`{}`) it goes to {way}", endpoint.service));
            }
        }
        if ways.is_empty() {
            return;
        }
        self.add(
            Object::EndpointProtocols,
            Kind::PingAsProbe,
            format!("ping and traceroute do not show the way that TCP takes: {}", ways.join("; ")),
            "endpoints steer the listed protocols only, in Azure TCP; ICMP takes the other routes (Azure, \"Azure Virtual \
             Network frequently asked questions\")",
            "probe with TCP (`curl`, `traceroute -T -p 443`), or ask `sidestep next-hop --protocol tcp`".to_owned(),
        );
    }

    /// User routes and endpoints that take traffic from each other. Subnets with the same routes are told together.
    fn shadowed(&mut self) {
        let mut known: HashMap<usize, Vec<Meeting>> = HashMap::new();
        let mut alike: BTreeMap<Alike, (Vec<SubnetRef>, &Route)> = BTreeMap::new();
        for (subnet, declared) in self.subnets() {
            let Some(table) = declared.route_table.filter(|_| !declared.service_endpoints.is_empty()) else { continue };
            let Ok(found) = self.plan.subnets.binary_search_by_key(&subnet, |(subnet, _)| *subnet) else { continue };
            let routes = self.plan.effective_routes(subnet);
            let precedence = self.network.semantics.endpoint_precedence;
            let meetings = known.entry(self.plan.subnets[found].1).or_insert_with(|| meetings(routes, precedence));
            for meeting in meetings.iter() {
                let (user, endpoint) = (&routes[meeting.user].route, &routes[meeting.endpoint].route);
                let written = &self.network.route_tables[table].routes;
                let Some(route) = written.iter().position(|route| Some(&route.name) == user.name.as_ref()) else {
                    continue;
                };
                let service = endpoint.name.clone().unwrap_or_default();
                let key = Alike { table, route, endpoint_wins: meeting.endpoint_wins, service };
                alike.entry(key).or_insert_with(|| (Vec::new(), user)).0.push(subnet);
            }
        }
        for (Alike { table, route, endpoint_wins, service }, (subnets, user)) in alike {
            let shown = listed(subnets.iter().map(|subnet| self.network.subnet_name(*subnet)));
            let prefix = user.prefixes.first().map(ToString::to_string).unwrap_or_default();
            let name = user.name.as_deref().unwrap_or_default();
            let what = format!("the route `{name}` for {}", user.service_tag.as_ref().unwrap_or(&prefix));
            let documented = self.network.semantics.endpoint_precedence == EndpointPrecedence::Documented;
            let steers_all = self.network.semantics.endpoint_protocols == EndpointProtocols::Any;
            let steered = if steers_all { "" } else { " for the protocols that endpoints steer" };
            let place = Object::Route { table, route };
            if endpoint_wins {
                let reason = if documented {
                    "endpoint routes come before user routes that match, whatever the prefix lengths (Azure, \"Virtual \
                     Network service endpoints\"); labs have seen equal and longer prefixes win, as with \
                     endpoint_precedence = \"longest-prefix\""
                } else {
                    "a user route to Internet leaves endpoint traffic where it is, as labs have seen; Azure says that the \
                     endpoint comes first in any case (Azure, \"Virtual network traffic routing\")"
                };
                self.add(
                    place,
                    Kind::RouteShadowedByEndpoint,
                    format!("{what} does nothing in {shown}{steered}: the endpoint for `{service}` comes first"),
                    reason,
                    "remove the route; or remove the endpoint, if the traffic is meant to go there".to_owned(),
                );
            } else {
                self.add(
                    place,
                    Kind::EndpointShadowedByRoute,
                    format!("{what} takes traffic from the endpoint for `{service}` in {shown}"),
                    "with endpoint_precedence = \"longest-prefix\", user routes with an equal or longer prefix win, as \
                     labs have seen; Azure says that the endpoint comes first (Azure, \"Virtual network traffic routing\")",
                    "remove the route or the endpoint, so that the way does not depend on it".to_owned(),
                );
            }
        }
    }
}

/// User routes that lie inside an endpoint, and endpoints that a user route leaves nothing.
fn meetings(routes: &[EffectiveRoute], precedence: EndpointPrecedence) -> Vec<Meeting> {
    let users = || routes.iter().enumerate().filter(|(_, route)| matches!(route.route.kind, RouteKind::User { .. }));
    let mut meetings = Vec::new();
    for (endpoint, taken) in routes.iter().enumerate().filter(|(_, route)| route.route.kind == RouteKind::Endpoint) {
        for (user, found) in users() {
            let loses_all = taken.state == RouteState::Invalid
                && taken.overridden.iter().any(|lost| lost.by == Some(user) && lost.loss == Loss::LowerSource);
            if loses_all || lies_inside(&found.route.prefixes, &taken.route.prefixes) {
                let to_internet = found.route.next_hop == NextHop::Internet;
                let endpoint_wins = precedence == EndpointPrecedence::Documented || to_internet;
                meetings.push(Meeting { user, endpoint, endpoint_wins });
            }
        }
    }
    meetings
}

/// Whether each of some prefixes lies in one of others.
fn lies_inside(prefixes: &[IpNet], others: &[IpNet]) -> bool {
    !prefixes.is_empty() && prefixes.iter().all(|prefix| others.iter().any(|other| other.contains(prefix)))
}
