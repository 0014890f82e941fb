//! Checks virtual networks: address spaces, subnets, endpoints, peerings.

use ipnet::IpNet;
use toml::Spanned;

use super::ranges::{overlap, refused};
use super::{Context, identity, nsg, policies, shown, sources, text, translation};
use crate::model::document;
use crate::model::names::{Unique, check_resource_name, did_you_mean, location, nearest, region};
use crate::model::network::{Peering, ServiceEndpoint, Subnet, VirtualNetwork};
use crate::model::services::{ENDPOINT_SERVICES, EndpointService, SQL, STORAGE_GLOBAL, endpoint_service};

/// Virtual networks of one subscription (Azure, networking limits).
const MAX_NETWORKS: usize = 1000;
/// Subnets of one virtual network (Azure, networking limits).
const MAX_SUBNETS: usize = 3000;
/// Peerings of one virtual network (Azure, networking limits).
const MAX_PEERINGS: usize = 500;
/// The subnet that holds the virtual network gateway has this name.
pub(super) const GATEWAY_SUBNET: &str = "GatewaySubnet";

/// Checks all virtual networks. One without a location is in that of the document.
pub(super) fn virtual_networks(context: Context<'_>, home: &str) -> Vec<VirtualNetwork> {
    let networks = &context.document.virtual_networks;
    context.at_most(MAX_NETWORKS, networks, "virtual networks");
    let mut names = Unique::new("virtual network");
    let mut tags = Unique::new("traffic_tag of a virtual network");
    let checked = networks
        .iter()
        .enumerate()
        .map(|(index, written)| {
            let written = written.get_ref();
            if let Some(name) = &written.name {
                check_resource_name(name, context.report);
                names.note_name(name, context.report);
            }
            address_space(context, written);
            let own = written.location.as_ref().map(|written| location(written, context.tags, context.report));
            let location = own.unwrap_or_else(|| home.to_owned());
            VirtualNetwork {
                name: text(&written.name),
                address_space: written.address_space.iter().map(|range| *range.get_ref()).collect(),
                traffic_tag: identity::network_tag(context, written, &mut tags),
                peerings: peerings(context, index),
                subnets: subnets(context, written, &location),
                location,
            }
        })
        .collect();
    peered_address_spaces(context);
    checked
}

fn address_space(context: Context<'_>, network: &document::VirtualNetwork) {
    let name = shown(&network.name);
    for (index, range) in network.address_space.iter().enumerate() {
        let (place, range) = (range.span(), range.get_ref());
        if let Some((refused, what)) = refused(range) {
            context.report.mistake_with_help(
                &place,
                format!("the address range `{range}` overlaps `{refused}` ({what}), which no virtual network may have"),
                "take a range of private addresses, such as \"10.0.0.0/16\" or \"fd00:1::/48\"",
            );
        }
        let length = range.prefix_len();
        match range {
            IpNet::V4(_) => ipv4_size(context, range, &place),
            IpNet::V6(_) if length > 64 => context.report.mistake_with_help(
                &place,
                format!("the address range `{range}` has no room for a subnet"),
                "an IPv6 subnet is a /64: take a range of that size or larger",
            ),
            IpNet::V6(_) => {}
        }
        let before = network.address_space[..index].iter().find(|other| overlap(other.get_ref(), range));
        if let Some(other) = before {
            let line = context.report.line(&other.span());
            context.report.mistake_with_help(
                &place,
                format!("the address range `{range}` of virtual network `{name}` overlaps `{}`", other.get_ref()),
                format!("the other one is in line {line}; make one of them smaller, or remove it"),
            );
        }
    }
}

/// IPv4 prefixes of subnets are /29 to /2 (Azure, virtual network FAQ); an address space has room for one at least.
fn ipv4_size(context: Context<'_>, prefix: &IpNet, place: &std::ops::Range<usize>) {
    let length = prefix.prefix_len();
    if length > 29 {
        let help = IpNet::new(prefix.addr(), 29)
            .map_or_else(|_| String::new(), |net| format!(", such as \"{}\"", net.trunc()));
        let message = format!("the prefix `{prefix}` is too small");
        context.report.mistake_with_help(place, message, format!("the smallest IPv4 prefix is a /29{help}"));
    } else if length < 2 {
        let message = format!("the prefix `{prefix}` is too large");
        context.report.mistake_with_help(place, message, "the largest IPv4 prefix is a /2");
    }
}

fn subnets(context: Context<'_>, network: &document::VirtualNetwork, location: &str) -> Vec<Subnet> {
    let network_name = shown(&network.name);
    context.at_most(MAX_SUBNETS, &network.subnets, &format!("subnets of virtual network `{network_name}`"));
    let mut names = Unique::new("subnet");
    let mut tags = Unique::new("traffic_tag of a subnet");
    let mut taken: Vec<(&str, &Spanned<IpNet>)> = Vec::new();
    let mut checked = Vec::new();
    for written in network.subnets.iter().map(Spanned::get_ref) {
        let name = shown(&written.name);
        if let Some(name) = &written.name {
            check_resource_name(name, context.report);
            names.note_name(name, context.report);
        }
        for prefix in written.address_prefixes.iter() {
            subnet_prefix(context, network, name, prefix);
            if let Some((other, with)) = taken.iter().find(|(_, other)| overlap(other.get_ref(), prefix.get_ref())) {
                let line = context.report.line(&with.span());
                context.report.mistake_with_help(
                    &prefix.span(),
                    format!(
                        "the prefix `{}` of subnet `{network_name}/{name}` overlaps `{}` of subnet `{network_name}/{other}`",
                        prefix.get_ref(),
                        with.get_ref(),
                    ),
                    format!("the other one is in line {line}"),
                );
            }
            taken.push((name, prefix));
        }
        let is_gateway_subnet = name.eq_ignore_ascii_case(GATEWAY_SUBNET);
        let route_table = written.route_table.as_ref().and_then(|table| context.resolve_route_table(table));
        if let (true, Some(table)) = (is_gateway_subnet, route_table) {
            gateway_subnet_table(context, written, table);
        }
        checked.push(Subnet {
            name: if is_gateway_subnet { GATEWAY_SUBNET.to_owned() } else { text(&written.name) },
            address_prefixes: written.address_prefixes.iter().map(|prefix| *prefix.get_ref()).collect(),
            route_table,
            nat_gateway: translation::of_subnet(context, written),
            default_outbound_access: written.default_outbound_access,
            traffic_tag: identity::subnet_tag(context, written, &mut tags),
            network_security_group: nsg::of(context, &written.network_security_group),
            service_endpoints: service_endpoints(context, &format!("{network_name}/{name}"), written),
            service_endpoint_policies: policies::of_subnet(context, written, location),
        });
    }
    checked
}

fn subnet_prefix(context: Context<'_>, network: &document::VirtualNetwork, subnet: &str, prefix: &Spanned<IpNet>) {
    let place = prefix.span();
    let prefix = prefix.get_ref();
    match prefix {
        IpNet::V4(_) => ipv4_size(context, prefix, &place),
        IpNet::V6(_) if prefix.prefix_len() != 64 => {
            let help = IpNet::new(prefix.addr(), 64)
                .map_or_else(|_| String::new(), |net| format!("write \"{}\"", net.trunc()));
            context.report.mistake_with_help(
                &place,
                format!("the IPv6 prefix `{prefix}` of a subnet is not a /64"),
                help,
            );
        }
        IpNet::V6(_) => {}
    }
    let space = &network.address_space;
    let inside = space.iter().any(|range| range.get_ref().contains(prefix));
    if !inside && space.complete && !space.is_empty() {
        let network = shown(&network.name);
        let ranges: Vec<String> = space.iter().map(|range| range.get_ref().to_string()).collect();
        context.report.mistake_with_help(
            &place,
            format!("the prefix `{prefix}` of subnet `{network}/{subnet}` is outside the address space of `{network}`"),
            format!("the address space is {}", ranges.join(", ")),
        );
    }
}

/// A gateway cannot work behind a default route or without its learned routes (Azure, "Virtual network traffic
/// routing").
fn gateway_subnet_table(context: Context<'_>, subnet: &document::Subnet, table: usize) {
    let Some(place) = subnet.route_table.as_ref().map(Spanned::span) else {
        return;
    };
    let table = context.route_table(table);
    let name = shown(&table.name);
    if table.disable_bgp_route_propagation {
        context.report.mistake_with_help(
            &place,
            format!("the route table `{name}` disables propagation, which GatewaySubnet does not support"),
            "give GatewaySubnet a route table with propagation, or none",
        );
    }
    let default = table.routes.iter().find_map(|route| {
        let prefix = route.get_ref().address_prefix.as_ref()?;
        let parsed: IpNet = prefix.get_ref().parse().ok()?;
        (parsed.prefix_len() == 0).then_some(prefix)
    });
    if let Some(default) = default {
        let line = context.report.line(&default.span());
        context.report.mistake_with_help(
            &place,
            format!(
                "the route table `{name}` has a route for `{}`, which GatewaySubnet does not support",
                default.get_ref()
            ),
            format!("the route is in line {line}; give GatewaySubnet a route table without it, or none"),
        );
    }
}

fn service_endpoints(context: Context<'_>, subnet: &str, written: &document::Subnet) -> Vec<ServiceEndpoint> {
    let mut seen: Vec<(&EndpointService, std::ops::Range<usize>)> = Vec::new();
    let mut checked = Vec::new();
    for endpoint in written.service_endpoints.iter().map(Spanned::get_ref) {
        let source = sources::endpoint_source(context, subnet, written, &endpoint.source);
        let locations = endpoint_locations(context, endpoint);
        let Some(name) = &endpoint.service else { continue };
        let Some(service) = known_service(context, name) else { continue };
        for (other, place) in &seen {
            let line = context.report.line(place);
            if other.name == service.name {
                context.report.mistake_with_help(
                    &name.span(),
                    format!("the subnet `{subnet}` has two endpoints for `{}`", service.name),
                    format!("the first one is in line {line}; list all locations there"),
                );
            } else if [other.name, service.name].contains(&STORAGE_GLOBAL) && other.tags == service.tags {
                context.report.mistake_with_help(
                    &name.span(),
                    format!(
                        "the subnet `{subnet}` has endpoints for `{}` and `{}`, which exclude each other",
                        other.name, service.name
                    ),
                    format!("the other one is in line {line}; keep one of the two"),
                );
            }
        }
        seen.push((service, name.span()));
        tags_of_service(context, name, service);
        checked.push(ServiceEndpoint { service: service.name.to_owned(), locations, source });
    }
    checked
}

/// Finds a service with endpoints by its name, or reports that there is none.
pub(super) fn known_service(context: Context<'_>, name: &document::Text) -> Option<&'static EndpointService> {
    let found = endpoint_service(name.get_ref());
    if found.is_none() {
        let near = nearest(name.get_ref(), ENDPOINT_SERVICES.iter().map(|service| service.name));
        let known: Vec<&str> = ENDPOINT_SERVICES.iter().map(|service| service.name).collect();
        let help = did_you_mean(near).unwrap_or_else(|| format!("services with endpoints are {}", known.join(", ")));
        let message = format!("unknown service `{}`", name.get_ref());
        context.report.mistake_with_help(&name.span(), message, help);
    }
    found
}

/// The regions of an endpoint, each of which needs a tag of the service; `*` stands for all and is kept alone. The
/// endpoint of `Microsoft.Sql` has the network's region, whatever it lists.
fn endpoint_locations(context: Context<'_>, endpoint: &document::ServiceEndpoint) -> Vec<String> {
    let service = endpoint.service.as_ref().and_then(|name| endpoint_service(name.get_ref()));
    let is_sql = service.is_some_and(|service| service.name == SQL);
    let mut names = Vec::new();
    for written in endpoint.locations.iter().filter(|written| written.get_ref() != "*") {
        let name = location(written, context.tags, context.report);
        if let (Some(service), false) = (service, is_sql) {
            regional_tag(context, service, &name, written);
        }
        names.push(name);
    }
    if let (true, Some(service), Some(name), Some(home)) =
        (is_sql, service, &endpoint.service, &context.document.location)
    {
        regional_tag(context, service, &region(home), name);
    }
    if names.len() < endpoint.locations.len() { vec!["*".to_owned()] } else { names }
}

/// Reports that the catalogue has tags of a service, but none for a region.
fn regional_tag(context: Context<'_>, service: &EndpointService, region: &str, place: &document::Text) {
    let Some(tags) = context.tags else { return };
    let has_one = service.tags.iter().any(|tag| tags.contains(tag));
    if has_one && !service.tags.iter().any(|tag| tags.has_regional(tag, region)) {
        let tag = service.tags.join("` or `");
        context.report.mistake_with_help(
            &place.span(),
            format!("the catalogue has no service tag `{tag}` for the region `{region}`"),
            "write a region of the catalogue, or leave out locations where the service has endpoints for all regions",
        );
    }
}

/// An endpoint needs the service's tag: without it, it would route nothing.
fn tags_of_service(context: Context<'_>, name: &document::Text, service: &EndpointService) {
    let message = match context.tags {
        Some(tags) if service.tags.iter().any(|tag| tags.contains(tag)) => return,
        Some(_) => {
            format!("the catalogue has no service tag `{}`, which the endpoint needs", service.tags.join("` or `"))
        }
        None if context.document.tags.is_some() => return,
        None => format!("an endpoint for `{}` needs a catalogue of service tags", service.name),
    };
    context.report.mistake_with_help(&name.span(), message, "name a catalogue with it: tags = \"FILE\"");
}

fn peerings(context: Context<'_>, network: usize) -> Vec<Peering> {
    let written = context.network(network);
    let name = context.network_name(network);
    context.at_most(MAX_PEERINGS, &written.peerings, &format!("peerings of virtual network `{name}`"));
    let mut remotes = Unique::new("peering with");
    let mut uses_remote = None;
    let mut checked = Vec::new();
    for peering in written.peerings.iter().map(Spanned::get_ref) {
        if let Some(place) = peering.uses_remote_gateways() {
            if let Some(first) = &uses_remote {
                let line = context.report.line(first);
                context.report.mistake_with_help(
                    &place,
                    format!("virtual network `{name}` uses remote gateways over two peerings"),
                    format!("one peering of a network may use remote gateways; the first one is in line {line}"),
                );
            } else {
                uses_remote = Some(place);
            }
        }
        let Some(remote_name) = &peering.remote else { continue };
        let Some(remote) = context.resolve_network(remote_name) else { continue };
        let place = remote_name.span();
        if remote == network {
            context.report.mistake(&place, format!("virtual network `{name}` is peered with itself"));
            continue;
        }
        remotes.note_name(remote_name, context.report);
        let other_side =
            context.network(remote).peerings.iter().map(Spanned::get_ref).find(|other| {
                other.remote.as_ref().and_then(|name| context.find_network(name.get_ref())) == Some(network)
            });
        match other_side {
            Some(other_side) => remote_gateways(context, network, peering, remote, other_side),
            None if !context.knows_peers(remote) => {}
            None => context.report.mistake_with_help(
                &place,
                format!(
                    "virtual network `{name}` is peered with `{0}`, but `{0}` not with `{name}`",
                    context.network_name(remote)
                ),
                format!("add {{ remote = \"{name}\" }} to the peerings of `{}`", context.network_name(remote)),
            ),
        }
        checked.push(Peering {
            remote,
            allow_virtual_network_access: peering.allow_virtual_network_access,
            allow_forwarded_traffic: peering.allow_forwarded_traffic,
            allow_gateway_transit: peering.allow_gateway_transit,
            use_remote_gateways: peering.uses_remote_gateways().is_some(),
        });
    }
    checked
}

fn remote_gateways(
    context: Context<'_>,
    network: usize,
    peering: &document::Peering,
    remote: usize,
    other_side: &document::Peering,
) {
    let Some(place) = peering.uses_remote_gateways() else { return };
    let (name, remote_name) = (context.network_name(network), context.network_name(remote));
    if !other_side.allow_gateway_transit {
        context.report.mistake_with_help(
            &place,
            format!("`{name}` uses the gateway of `{remote_name}`, which does not allow gateway transit"),
            format!("set allow_gateway_transit = true in the peering of `{remote_name}` with `{name}`"),
        );
    }
    if context.gateway_network() == Some(network) {
        context.report.mistake_with_help(
            &place,
            format!("`{name}` uses the gateway of `{remote_name}` and has one of its own"),
            "remove use_remote_gateways",
        );
    } else if context.gateway_network() != Some(remote) && !context.gateway_is_lost() {
        context.report.mistake_with_help(
            &place,
            format!("`{name}` uses the gateway of `{remote_name}`, which has none"),
            format!("add [gateway] with virtual_network = \"{remote_name}\", or remove use_remote_gateways"),
        );
    }
}

/// A network and the networks that it is peered with need distinct address spaces, or there is no telling whose an
/// address is.
fn peered_address_spaces(context: Context<'_>) {
    for network in 0..context.document.virtual_networks.len() {
        let peerings = &context.network(network).peerings;
        let peers: Vec<(usize, &document::Text)> = peerings
            .iter()
            .filter_map(|peering| {
                let remote = peering.get_ref().remote.as_ref()?;
                Some((context.find_network(remote.get_ref())?, remote))
            })
            .filter(|(remote, _)| *remote != network)
            .collect();
        for (index, (remote, place)) in peers.iter().enumerate() {
            if let Some((a, b)) = common_range(context, network, *remote).filter(|_| network < *remote) {
                let (name, remote) = (context.network_name(network), context.network_name(*remote));
                context.report.mistake_with_help(
                    &place.span(),
                    format!("the peered virtual networks `{name}` and `{remote}` overlap: `{a}` and `{b}`"),
                    "give them distinct address spaces, or remove the peering",
                );
            }
            for (other, _) in &peers[..index] {
                if let Some((a, b)) = common_range(context, *other, *remote).filter(|_| other != remote) {
                    let name = context.network_name(network);
                    let (other, remote) = (context.network_name(*other), context.network_name(*remote));
                    context.report.mistake_with_help(
                        &place.span(),
                        format!("`{name}` is peered with `{other}` and `{remote}`, which overlap: `{a}` and `{b}`"),
                        "give them distinct address spaces, or remove a peering",
                    );
                }
            }
        }
    }
}

fn common_range(context: Context<'_>, a: usize, b: usize) -> Option<(IpNet, IpNet)> {
    let (a, b) = (&context.network(a).address_space, &context.network(b).address_space);
    a.iter().find_map(|a| {
        let b = b.iter().find(|b| overlap(a.get_ref(), b.get_ref()))?;
        Some((*a.get_ref(), *b.get_ref()))
    })
}

impl Context<'_> {
    /// Reports the first element of a list that is beyond a limit.
    pub(super) fn at_most<T>(self, limit: usize, list: &[Spanned<T>], what: &str) {
        if let Some(beyond) = list.get(limit) {
            let message = format!("there are {} {what}, and {limit} is the limit", list.len());
            self.report.mistake(&beyond.span(), message);
        }
    }
}
