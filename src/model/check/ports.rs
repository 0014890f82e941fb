//! Checks what the node's ports are: NICs, the gateway, the internet edge, the backbone, services.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::devices::Devices;
use super::networks::{GATEWAY_SUBNET, known_service};
use super::ranges::{not_public, reserved};
use super::{Context, firewalls, nsg, policies, shown, text, translation};
use crate::model::document;
use crate::model::names::{Unique, check_host_name, check_resource_name, location};
use crate::model::network::{Backbone, Gateway, Internet, Nic, Platform, Resource, Service, SubnetRef};
use crate::model::read::List;
use crate::model::services::{STORAGE_GLOBAL, endpoint_service};

/// Private addresses of one NIC (Azure, networking limits).
const MAX_NIC_ADDRESSES: usize = 256;
/// Private addresses of one virtual network (Azure, networking limits).
const MAX_NETWORK_ADDRESSES: usize = 65_536;
/// Names of the ports that have none in the document.
const PORT_NAMES: [&str; 4] = ["gateway", "internet", "backbone", "platform"];

/// Checks all NICs.
pub(super) fn nics(context: Context<'_>, devices: &mut Devices) -> Vec<Nic> {
    let mut addresses: HashMap<usize, Unique<IpAddr>> = HashMap::new();
    let mut counts: HashMap<usize, usize> = HashMap::new();
    names(context);
    let mut checked = Vec::new();
    for written in context.document.nics.iter().map(Spanned::get_ref) {
        let device = devices.check(context, &written.device);
        let public = translation::of_nic(context, written);
        if let Some(id) = &written.resource_id {
            firewalls::resource_id(context, id);
        }
        context.at_most(MAX_NIC_ADDRESSES, &written.private_addresses, "private addresses of one NIC");
        let Some(subnet_name) = &written.subnet else { continue };
        let Some((network, subnet)) = context.resolve_subnet(subnet_name) else { continue };
        let in_subnet = context.network(network).subnets[subnet].get_ref();
        if shown(&in_subnet.name).eq_ignore_ascii_case(GATEWAY_SUBNET) {
            context.report.mistake_with_help(
                &subnet_name.span(),
                format!("GatewaySubnet holds the virtual network gateway only, not the NIC `{}`", shown(&written.name)),
                "put the NIC in another subnet",
            );
        }
        let taken = addresses.entry(network).or_insert_with(|| Unique::new("private address"));
        for address in written.private_addresses.iter() {
            private_address(context, address, subnet_name.get_ref(), in_subnet);
            taken.note(*address.get_ref(), &address.get_ref().to_string(), address.span(), context.report);
            let count = counts.entry(network).or_default();
            *count += 1;
            if *count == MAX_NETWORK_ADDRESSES + 1 {
                let name = context.network_name(network);
                context.report.mistake(
                    &address.span(),
                    format!("virtual network `{name}` has more than {MAX_NETWORK_ADDRESSES} private addresses"),
                );
            }
        }
        checked.push(Nic {
            name: text(&written.name),
            subnet: SubnetRef { virtual_network: network, subnet },
            private_addresses: written.private_addresses.iter().map(|address| *address.get_ref()).collect(),
            public_addresses: public,
            ip_forwarding: written.ip_forwarding,
            network_security_group: nsg::of(context, &written.network_security_group),
            application_security_groups: nsg::application_groups(context, &written.application_security_groups),
            trusted_service: written.trusted_service,
            resource_id: written.resource_id.as_ref().map(|id| id.get_ref().clone()),
            device,
        });
    }
    checked
}

/// NICs and services are ports of one node: their names are unique among all ports.
fn names(context: Context<'_>) {
    let mut seen = Unique::new("name");
    let nics = context.document.nics.iter().map(|nic| &nic.get_ref().name);
    let services = context.document.services.iter().map(|service| &service.get_ref().name);
    for name in nics.chain(services).flatten() {
        check_resource_name(name, context.report);
        seen.note_name(name, context.report);
        if PORT_NAMES.iter().any(|port| port.eq_ignore_ascii_case(name.get_ref())) {
            context.report.mistake(&name.span(), format!("`{}` is the name of a port of the node", name.get_ref()));
        }
    }
}

fn private_address(context: Context<'_>, address: &Spanned<IpAddr>, subnet_name: &str, subnet: &document::Subnet) {
    let (place, address) = (address.span(), *address.get_ref());
    let prefixes = &subnet.address_prefixes;
    let Some(prefix) = prefixes.iter().map(Spanned::get_ref).find(|prefix| prefix.contains(&address)) else {
        if prefixes.complete && !prefixes.is_empty() {
            let shown: Vec<String> = prefixes.iter().map(|prefix| prefix.get_ref().to_string()).collect();
            context.report.mistake_with_help(
                &place,
                format!("the address `{address}` is outside the subnet `{subnet_name}`"),
                format!("the subnet has {}", shown.join(", ")),
            );
        }
        return;
    };
    if reserved(prefix, address) {
        let help = match prefix {
            IpNet::V4(prefix) => {
                let first = std::net::Ipv4Addr::from_bits(prefix.network().to_bits() + 4);
                let last = std::net::Ipv4Addr::from_bits(prefix.broadcast().to_bits() - 1);
                format!("the first four addresses and the last one are reserved: take one of {first} to {last}")
            }
            IpNet::V6(prefix) => {
                let first = std::net::Ipv6Addr::from_bits(prefix.network().to_bits() + 4);
                format!("the first four addresses are reserved: take {first} or a higher one")
            }
        };
        context.report.mistake_with_help(&place, format!("the address `{address}` of `{prefix}` is reserved"), help);
    }
}

/// Checks the gateway.
pub(super) fn gateway(context: Context<'_>, devices: &mut Devices) -> Option<Gateway> {
    let written = context.document.gateway.as_ref()?.get_ref();
    let device = devices.check(context, &written.device);
    let mut learned = Unique::new("learned route");
    for route in written.learned_routes.iter() {
        learned.note(*route.get_ref(), &route.get_ref().to_string(), route.span(), context.report);
    }
    let virtual_network = context.resolve_network(written.virtual_network.as_ref()?)?;
    Some(Gateway {
        virtual_network,
        learned_routes: written.learned_routes.iter().map(|route| *route.get_ref()).collect(),
        device,
    })
}

/// Checks the internet edge.
pub(super) fn internet(context: Context<'_>, devices: &mut Devices) -> Option<Internet> {
    let written = context.document.internet.as_ref()?.get_ref();
    let mut seen = Unique::new("public address");
    for address in written.public_addresses.iter() {
        public_address(context, address, "a public address");
        seen.note(*address.get_ref(), &address.get_ref().to_string(), address.span(), context.report);
    }
    Some(Internet {
        public_addresses: written.public_addresses.iter().map(|address| *address.get_ref()).collect(),
        translation: translation::translation(context, &written.translation),
        device: devices.check(context, &written.device),
    })
}

/// Checks the backbone.
pub(super) fn backbone(context: Context<'_>, devices: &mut Devices) -> Option<Backbone> {
    let written = context.document.backbone.as_ref()?.get_ref();
    Some(Backbone { device: devices.check(context, &written.device) })
}

/// Checks where the platform's addresses are.
pub(super) fn platform(context: Context<'_>, devices: &mut Devices) -> Option<Platform> {
    let written = context.document.platform.as_ref()?.get_ref();
    Some(Platform { device: devices.check(context, &written.device) })
}

/// Checks all services. A service without a location is in that of the document.
pub(super) fn services(context: Context<'_>, home: &str, devices: &mut Devices) -> Vec<Service> {
    let mut addresses = Unique::new("service address");
    if let Some(internet) = &context.document.internet {
        for address in internet.get_ref().public_addresses.iter() {
            addresses.reserve(*address.get_ref(), address.span());
        }
    }
    let mut host_names = Unique::new("host name");
    let mut names = Unique::new("resource");
    for written in context.document.services.iter().map(Spanned::get_ref) {
        if let Some(name) = &written.name {
            names.reserve(name.get_ref().to_ascii_lowercase(), name.span());
        }
    }
    let mut checked = Vec::new();
    for written in context.document.services.iter().map(Spanned::get_ref) {
        for address in written.addresses.iter() {
            public_address(context, address, "a service's address");
            addresses.note(*address.get_ref(), &address.get_ref().to_string(), address.span(), context.report);
        }
        for name in written.all_host_names() {
            check_host_name(name, context.report);
            host_names.note_name(name, context.report);
        }
        let name = written.service.as_ref().and_then(|name| endpoint_service(name.get_ref()));
        let resources = resources(context, written, name.map_or("", |service| service.name), &mut names);
        let device = devices.check(context, &written.device);
        let location = written.location.as_ref().map(|written| location(written, context.tags, context.report));
        let Some(service_name) = &written.service else { continue };
        let Some(service) = known_service(context, service_name) else { continue };
        if service.name == STORAGE_GLOBAL {
            context.report.mistake_with_help(
                &service_name.span(),
                format!("`{STORAGE_GLOBAL}` is a kind of endpoint, not of resource"),
                "write \"Microsoft.Storage\"",
            );
        }
        checked.push(Service {
            name: text(&written.name),
            service: service.name.to_owned(),
            location: location.unwrap_or_else(|| home.to_owned()),
            addresses: written.addresses.iter().map(|address| *address.get_ref()).collect(),
            resources,
            device,
        });
    }
    checked
}

/// The resources of a service: itself, or those that share its addresses.
fn resources(
    context: Context<'_>,
    written: &document::Service,
    service: &str,
    names: &mut Unique<String>,
) -> Vec<Resource> {
    if written.resources.is_empty() {
        return vec![resource(
            context,
            service,
            (&written.name, &written.id, &written.service_alias),
            &written.host_names,
            &written.firewall,
        )];
    }
    let own = [
        written.id.as_ref().map(|id| ("id", id.span())),
        written.host_names.first().map(|name| ("host_names", name.span())),
        written.service_alias.as_ref().map(|alias| ("service_alias", alias.span())),
        written.firewall.as_ref().map(|firewall| ("firewall", firewall.span())),
    ];
    for (key, place) in own.into_iter().flatten() {
        context.report.mistake_with_help(
            &place,
            format!("the service `{}` has resources and a `{key}` of its own", shown(&written.name)),
            format!("write `{key}` in each [[service.resource]]"),
        );
    }
    let resources = written.resources.iter().map(Spanned::get_ref);
    let checked = resources.map(|written| {
        if let Some(name) = &written.name {
            check_resource_name(name, context.report);
            names.note_name(name, context.report);
        }
        resource(
            context,
            service,
            (&written.name, &written.id, &written.service_alias),
            &written.host_names,
            &written.firewall,
        )
    });
    checked.collect()
}

fn resource(
    context: Context<'_>,
    service: &str,
    (name, id, alias): (&Option<document::Text>, &Option<document::Text>, &Option<document::Text>),
    host_names: &List<String>,
    firewall: &Option<Spanned<document::Firewall>>,
) -> Resource {
    if let Some(id) = id {
        firewalls::resource_id(context, id);
    }
    Resource {
        name: text(name),
        id: id.as_ref().map(|id| id.get_ref().clone()),
        service_alias: alias.as_ref().and_then(|alias| policies::alias(context, alias)),
        host_names: host_names.iter().map(|name| name.get_ref().clone()).collect(),
        firewall: firewalls::firewall(context, service, firewall),
    }
}

/// Reports an address that is not public; `what` says what it is for.
pub(super) fn public_address(context: Context<'_>, address: &Spanned<IpAddr>, what: &str) {
    if let Some(range) = not_public(*address.get_ref()) {
        let message = format!("`{}` cannot be {what}: it is {range}", address.get_ref());
        context.report.mistake_with_help(&address.span(), message, "write an address that the internet may have");
    }
}
