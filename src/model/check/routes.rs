//! Checks route tables: what a user route may match, where it may send.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::{Context, shown, text};
use crate::model::document;
use crate::model::names::{Unique, check_resource_name, did_you_mean, nearest};
use crate::model::network::{AddressPrefix, Route, RouteTable, UserNextHop};
use crate::model::read::parse_prefix;

/// Route tables of one subscription (Azure, networking limits).
const MAX_TABLES: usize = 200;
/// Routes of one table (Azure, networking limits).
const MAX_ROUTES: usize = 400;
/// Routes with a service tag of one table (Azure, "Virtual network traffic routing").
const MAX_TAG_ROUTES: usize = 25;

/// Next hop types that users may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settable {
    VirtualNetworkGateway,
    VnetLocal,
    Internet,
    VirtualAppliance,
    None,
}

const SETTABLE: [(&str, Settable); 5] = [
    ("VirtualNetworkGateway", Settable::VirtualNetworkGateway),
    ("VnetLocal", Settable::VnetLocal),
    ("Internet", Settable::Internet),
    ("VirtualAppliance", Settable::VirtualAppliance),
    ("None", Settable::None),
];

/// Next hop types that only the platform sets, and what makes it do so.
const UNSETTABLE: [(&str, &str); 6] = [
    ("VirtualNetworkServiceEndpoint", "users cannot write it: enable the service in service_endpoints of the subnet"),
    ("VNetPeering", "users cannot write it: declare peerings of the virtual networks"),
    ("VNetGlobalPeering", "users cannot write it: declare peerings of the virtual networks"),
    ("VirtualNetworkPeering", "users cannot write it: declare peerings of the virtual networks"),
    ("InterfaceEndpoint", "users cannot write it: private endpoints set it, and this network has none"),
    ("VirtualApplianceEcmp", "routes over several appliances are not there: write VirtualAppliance with one address"),
];

/// Tags that are computed for each network, so that a route cannot have them.
const COMPUTED_TAGS: [&str; 3] = ["VirtualNetwork", "Internet", "AzureLoadBalancer"];

/// Checks all route tables.
pub(super) fn route_tables(context: Context<'_>) -> Vec<RouteTable> {
    let tables = &context.document.route_tables;
    context.at_most(MAX_TABLES, tables, "route tables");
    let mut names = Unique::new("route table");
    tables
        .iter()
        .enumerate()
        .map(|(index, written)| {
            let written = written.get_ref();
            if let Some(name) = &written.name {
                check_resource_name(name, context.report);
                names.note_name(name, context.report);
            }
            RouteTable {
                name: text(&written.name),
                disable_bgp_route_propagation: written.disable_bgp_route_propagation,
                routes: routes(context, index),
            }
        })
        .collect()
}

fn routes(context: Context<'_>, table: usize) -> Vec<Route> {
    let written = context.route_table(table);
    let table_name = shown(&written.name);
    context.at_most(MAX_ROUTES, &written.routes, &format!("routes in table `{table_name}`"));
    let mut names = Unique::new("route");
    let mut prefixes = Unique::new("prefix");
    let mut tags = Unique::new("service tag");
    let mut tag_routes = 0;
    let mut checked = Vec::new();
    for route in written.routes.iter().map(Spanned::get_ref) {
        if let Some(name) = &route.name {
            check_resource_name(name, context.report);
            names.note_name(name, context.report);
        }
        let prefix = route.address_prefix.as_ref().and_then(|prefix| address_prefix(context, prefix));
        if let (Some(prefix), Some(place)) = (&prefix, &route.address_prefix) {
            match prefix {
                AddressPrefix::Prefix(prefix) => {
                    prefixes.note(*prefix, &prefix.to_string(), place.span(), context.report);
                }
                AddressPrefix::ServiceTag(_) => {
                    tags.note_name(place, context.report);
                    tag_routes += 1;
                    if tag_routes == MAX_TAG_ROUTES + 1 {
                        context.report.mistake_with_help(
                            &place.span(),
                            format!(
                                "the route table `{table_name}` has more than {MAX_TAG_ROUTES} routes with service tags"
                            ),
                            "merge tags (Storage covers Storage.WestEurope), or write prefixes",
                        );
                    }
                }
            }
        }
        let next_hop = next_hop(context, table, route, prefix.as_ref());
        if let (Some(address_prefix), Some(next_hop)) = (prefix, next_hop) {
            checked.push(Route { name: text(&route.name), address_prefix, next_hop });
        }
    }
    checked
}

/// A prefix, or the name of a tag of the catalogue. No tag starts with a digit or has a colon or slash.
fn address_prefix(context: Context<'_>, written: &document::Text) -> Option<AddressPrefix> {
    let (name, place) = (written.get_ref(), written.span());
    if name.contains(['/', ':']) || name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        return parse_prefix(name, &place, context.report).map(AddressPrefix::Prefix);
    }
    let tag = Some(AddressPrefix::ServiceTag(name.clone()));
    if let Some(computed) = COMPUTED_TAGS.iter().find(|tag| tag.eq_ignore_ascii_case(name)) {
        context.report.mistake_with_help(
            &place,
            format!("a route cannot have the tag `{computed}`: it is computed for each network"),
            "write prefixes, such as \"0.0.0.0/0\"",
        );
        return tag;
    }
    match context.tags {
        Some(tags) if !tags.contains(name) => {
            let help = did_you_mean(tags.nearest(name).as_deref());
            context.report.add(&place, format!("unknown service tag `{name}`"), help);
        }
        Some(tags) if !tags.usable_in_routes(name) => context.report.mistake_with_help(
            &place,
            format!("the service tag `{name}` cannot be used in routes"),
            "the catalogue lists no UDR among its networkFeatures: write prefixes, or take another tag",
        ),
        None if context.document.tags.is_none() => context.report.mistake_with_help(
            &place,
            format!("the service tag `{name}` needs a catalogue"),
            "name one: tags = \"FILE\"; or write a prefix such as \"10.0.0.0/8\"",
        ),
        _ => {}
    }
    tag
}

fn next_hop(
    context: Context<'_>,
    table: usize,
    route: &document::Route,
    prefix: Option<&AddressPrefix>,
) -> Option<UserNextHop> {
    let written = route.next_hop_type.as_ref()?;
    let name = written.get_ref();
    let Some((_, kind)) = SETTABLE.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
        unsettable(context, written);
        return None;
    };
    if *kind == Settable::VirtualAppliance {
        if !route.has_next_hop_ip_address {
            context.report.mistake_with_help(
                &written.span(),
                "a route to a VirtualAppliance needs the appliance's address",
                "add next_hop_ip_address = \"ADDRESS\"",
            );
        }
        let address = route.next_hop_ip_address.as_ref()?;
        appliance(context, table, address, prefix);
        return Some(UserNextHop::VirtualAppliance(*address.get_ref()));
    }
    if let Some(address) = &route.next_hop_ip_address {
        context.report.mistake_with_help(
            &address.span(),
            format!("next_hop_ip_address means nothing with next_hop_type `{name}`"),
            "remove it, or write next_hop_type = \"VirtualAppliance\"",
        );
    }
    if *kind == Settable::VirtualNetworkGateway {
        reachable_gateway(context, table, &written.span());
    }
    Some(match kind {
        Settable::VirtualNetworkGateway => UserNextHop::VirtualNetworkGateway,
        Settable::VnetLocal => UserNextHop::VnetLocal,
        Settable::Internet => UserNextHop::Internet,
        Settable::VirtualAppliance | Settable::None => UserNextHop::None,
    })
}

fn unsettable(context: Context<'_>, written: &document::Text) {
    let name = written.get_ref();
    if let Some((_, why)) = UNSETTABLE.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        let message = format!("a route cannot have the next_hop_type `{name}`");
        context.report.mistake_with_help(&written.span(), message, *why);
        return;
    }
    let known: Vec<&str> = SETTABLE.iter().map(|(known, _)| *known).collect();
    let help = did_you_mean(nearest(name, known.iter().copied()));
    let help = help.unwrap_or_else(|| format!("write one of {}", known.join(", ")));
    context.report.mistake_with_help(&written.span(), format!("unknown next_hop_type `{name}`"), help);
}

/// An appliance has to be where the subnets of the table reach it directly, and not in one of them: its own packets
/// would come back to it.
fn appliance(context: Context<'_>, table: usize, address: &Spanned<IpAddr>, prefix: Option<&AddressPrefix>) {
    let (place, address) = (address.span(), *address.get_ref());
    if let Some(AddressPrefix::Prefix(prefix)) = prefix
        && prefix.addr().is_ipv4() != address.is_ipv4()
    {
        let (of_prefix, of_address) = if address.is_ipv4() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        context.report.mistake_with_help(
            &place,
            format!("the prefix `{prefix}` is {of_prefix}, and the appliance's address `{address}` is {of_address}"),
            format!("write an {of_prefix} address"),
        );
        return;
    }
    let mut strangers: Vec<usize> = Vec::new();
    for &(network, subnet) in context.users(table) {
        if subnet.address_prefixes.iter().any(|prefix| prefix.get_ref().contains(&address)) {
            let user = format!("{}/{}", context.network_name(network), shown(&subnet.name));
            context.report.mistake_with_help(
                &place,
                format!("the appliance `{address}` is in the subnet `{user}`, which uses this route table: a loop"),
                "put the appliance in a subnet of its own, with another route table or none",
            );
        }
        let has = |network: usize| {
            let space = &context.network(network).address_space;
            !space.complete || space.iter().any(|range: &Spanned<IpNet>| range.get_ref().contains(&address))
        };
        if !has(network)
            && context.knows_peers(network)
            && !context.peers(network).any(has)
            && !strangers.contains(&network)
        {
            strangers.push(network);
        }
    }
    for network in strangers {
        let name = context.network_name(network);
        context.report.mistake_with_help(
            &place,
            format!("the appliance `{address}` is outside virtual network `{name}` and those it is peered with"),
            format!("subnets of `{name}` use this route table: write an address that they reach directly"),
        );
    }
}

/// Some network that uses the table needs a gateway: its own, or one over a peering. A peering with an unknown network
/// may be the one, and is a mistake of its own.
fn reachable_gateway(context: Context<'_>, table: usize, place: &Range<usize>) {
    let users = context.users(table);
    let Some(&(first, _)) = users.first().filter(|_| !context.gateway_is_lost()) else {
        return;
    };
    let gateway = context.gateway_network();
    let usable = |network: usize| {
        gateway == Some(network)
            || context.network(network).peerings.iter().map(Spanned::get_ref).any(|peering| {
                let remote = peering.remote.as_ref().and_then(|name| context.find_network(name.get_ref()));
                peering.uses_remote_gateways().is_some() && (remote.is_none() || remote == gateway)
            })
    };
    if !users.iter().any(|(network, _)| usable(*network)) {
        let name = context.network_name(first);
        let help = match gateway {
            None => format!("add [gateway] with virtual_network = \"{name}\", or in a network that it is peered with"),
            Some(hub) => format!(
                "the gateway is in `{}`: peer `{name}` with it, with use_remote_gateways here and allow_gateway_transit there",
                context.network_name(hub)
            ),
        };
        let message = format!("no virtual network that uses this route table has a gateway (`{name}` has none)");
        context.report.mistake_with_help(place, message, help);
    }
}
