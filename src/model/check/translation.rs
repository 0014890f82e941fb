//! Checks what translates addresses: NAT gateways, pools, instance public addresses, and how their ports are used.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::devices::one_of_each_family;
use super::networks::GATEWAY_SUBNET;
use super::ports::public_address;
use super::ranges::{no_host, not_public};
use super::{Context, flows, shown, text};
use crate::model::document;
use crate::model::names::{Unique, check_resource_name};
use crate::model::network::{Filtering, Mapping, NatGateway, NatProtocols, SnatPool, Translation};

/// NAT gateways of one region (Azure, networking limits); there may be as many pools.
const MAX_GATEWAYS: usize = 1000;
/// Addresses of one NAT gateway (Azure, "Azure NAT Gateway").
const MAX_GATEWAY_ADDRESSES: usize = 16;
/// Addresses of one pool: more than 16 million ports.
const MAX_POOL_ADDRESSES: usize = 256;
/// Idle timeout of TCP (Azure, "Azure NAT Gateway"); the shorter end is the default.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(4 * 60)..=Duration::from_secs(120 * 60);
/// Ports of a pool unless the document gives some: all but the well-known ones (RFC 6335 section 6).
const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// Checks all NAT gateways.
pub(super) fn nat_gateways(context: Context<'_>) -> Vec<NatGateway> {
    let gateways = &context.document.nat_gateways;
    context.at_most(MAX_GATEWAYS, gateways, "NAT gateways");
    one_network_each(context);
    let mut names = Unique::new("NAT gateway");
    let checked = gateways.iter().map(Spanned::get_ref).map(|written| {
        check_name(context, &written.name, &mut names);
        context.at_most(MAX_GATEWAY_ADDRESSES, &written.public_addresses, "public addresses of one NAT gateway");
        for address in written.public_addresses.iter() {
            public_address(context, address, "a NAT gateway's address");
        }
        let idle_timeout = context.lifetime(&written.idle_timeout, "idle_timeout", IDLE_TIMEOUT);
        let lifetimes = flows::lifetimes(context, &written.lifetimes);
        for (lifetime, key) in
            [(&lifetimes.tcp_established, "tcp_established"), (&lifetimes.tcp_closing, "tcp_closing")]
        {
            if let (Some(_), Some(written)) = (lifetime, &written.lifetimes) {
                let message = format!("a NAT gateway has no `{key}`: it is the `idle_timeout`");
                context.report.mistake_with_help(&written.span(), message, "write `idle_timeout` of 4m to 120m");
            }
        }
        NatGateway {
            name: text(&written.name),
            public_addresses: written.public_addresses.iter().map(|address| *address.get_ref()).collect(),
            idle_timeout: idle_timeout.unwrap_or(*IDLE_TIMEOUT.start()),
            lifetimes,
            translation: translation(context, &written.translation),
        }
    });
    checked.collect()
}

/// Checks all pools.
pub(super) fn snat_pools(context: Context<'_>) -> Vec<SnatPool> {
    let pools = &context.document.snat_pools;
    context.at_most(MAX_GATEWAYS, pools, "SNAT pools");
    let mut names = Unique::new("SNAT pool");
    let checked = pools.iter().map(Spanned::get_ref).map(|written| {
        check_name(context, &written.name, &mut names);
        context.at_most(MAX_POOL_ADDRESSES, &written.addresses, "addresses of one SNAT pool");
        for address in written.addresses.iter() {
            if let Some(range) = no_host(*address.get_ref()) {
                let message = format!("`{}` cannot be a SNAT pool's address: it is {range}", address.get_ref());
                context.report.mistake(&address.span(), message);
            }
        }
        SnatPool {
            name: text(&written.name),
            addresses: written.addresses.iter().map(|address| *address.get_ref()).collect(),
            ports: written.ports.as_ref().and_then(|written| ports(context, written)).unwrap_or(PORTS),
            translation: translation(context, &written.translation),
        }
    });
    checked.collect()
}

fn check_name(context: Context<'_>, name: &Option<document::Text>, names: &mut Unique<String>) {
    if let Some(name) = name {
        check_resource_name(name, context.report);
        names.note_name(name, context.report);
    }
}

/// `1024-65535`
fn ports(context: Context<'_>, written: &document::Text) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let both = written.get_ref().split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let range = both.filter(|(first, last)| first <= last).map(|(first, last)| first..=last);
    if range.is_none() {
        context.report.mistake_with_help(
            &written.span(),
            format!("`{}` is not a range of ports", written.get_ref()),
            "write the first port and the last, from 1 to 65535, such as \"1024-65535\"",
        );
    }
    range
}

/// Checks how addresses and ports are used.
pub(super) fn translation(context: Context<'_>, written: &document::Translation) -> Translation {
    let mappings = [
        ("address-and-port-dependent", Mapping::AddressAndPortDependent),
        ("endpoint-independent", Mapping::EndpointIndependent),
    ];
    let filterings = [
        ("address-and-port-dependent", Filtering::AddressAndPortDependent),
        ("address-dependent", Filtering::AddressDependent),
        ("endpoint-independent", Filtering::EndpointIndependent),
    ];
    let mapping = context.word(&written.mapping, "mapping", &mappings);
    let filtering = context.word(&written.filtering, "filtering", &filterings);
    let is_dependent = match &written.mapping {
        Some(_) => mapping == Some(Mapping::AddressAndPortDependent),
        None => true,
    };
    if let (Some(place), true) = (&written.filtering, is_dependent)
        && filtering.is_some_and(|filtering| filtering != Filtering::AddressAndPortDependent)
    {
        context.report.mistake_with_help(
            &place.span(),
            format!("the filtering `{}` needs endpoint-independent mapping", place.get_ref()),
            "add mapping = \"endpoint-independent\", or remove filtering",
        );
    }
    Translation { mapping: mapping.unwrap_or_default(), filtering: filtering.unwrap_or_default() }
}

/// `semantics.nat_protocols`: `"any"`, or TCP and UDP.
pub(super) fn nat_protocols(context: Context<'_>, semantics: &document::Semantics) -> NatProtocols {
    let Some(written) = &semantics.nat_protocols else { return NatProtocols::default() };
    let list = &written.get_ref().0;
    let mut names: Vec<&str> = list.iter().map(|name| name.get_ref().as_str()).collect();
    names.sort_unstable();
    match *names {
        ["any"] => NatProtocols::Any,
        ["tcp", "udp"] => NatProtocols::TcpAndUdp,
        _ => {
            if list.complete {
                context.report.mistake_with_help(
                    &written.span(),
                    "NAT translates either every protocol or TCP and UDP",
                    "write \"any\" or [\"tcp\", \"udp\"]",
                );
            }
            NatProtocols::default()
        }
    }
}

/// The NAT gateway of a subnet. GatewaySubnet has none (Azure, "Azure NAT Gateway").
pub(super) fn of_subnet(context: Context<'_>, subnet: &document::Subnet) -> Option<usize> {
    let name = subnet.nat_gateway.as_ref()?;
    if shown(&subnet.name).eq_ignore_ascii_case(GATEWAY_SUBNET) {
        context.report.mistake_with_help(
            &name.span(),
            "GatewaySubnet cannot have a NAT gateway",
            "remove nat_gateway, or give it to another subnet",
        );
    }
    context.resolve_nat_gateway(name)
}

/// A NAT gateway serves subnets of one virtual network (Azure, "Azure NAT Gateway").
fn one_network_each(context: Context<'_>) {
    let mut served: HashMap<usize, (usize, Range<usize>)> = HashMap::new();
    for (network, written) in context.document.virtual_networks.iter().enumerate() {
        for name in written.get_ref().subnets.iter().filter_map(|subnet| subnet.get_ref().nat_gateway.as_ref()) {
            let Some(gateway) = context.find_nat_gateway(name.get_ref()) else { continue };
            let (first, place) = served.entry(gateway).or_insert_with(|| (network, name.span()));
            if *first != network {
                let (first, line) = (context.network_name(*first), context.report.line(place));
                context.report.mistake_with_help(
                    &name.span(),
                    format!("the NAT gateway `{}` serves virtual network `{first}` already", name.get_ref()),
                    format!("see line {line}; give `{}` a NAT gateway of its own", context.network_name(network)),
                );
            }
        }
    }
}

/// The public addresses of a NIC.
pub(super) fn of_nic(context: Context<'_>, nic: &document::Nic) -> Vec<IpAddr> {
    let public = &nic.public_addresses;
    one_of_each_family(context, public, "public address of a NIC");
    for address in public.iter() {
        public_address(context, address, "a NIC's public address");
        let is_v4 = address.get_ref().is_ipv4();
        let private = &nic.private_addresses;
        if private.complete && !private.iter().any(|private| private.get_ref().is_ipv4() == is_v4) {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            context.report.mistake_with_help(
                &address.span(),
                format!(
                    "the NIC `{}` has no private {family} address to go with `{}`",
                    shown(&nic.name),
                    address.get_ref()
                ),
                format!("add an {family} address to private_addresses, or remove this one"),
            );
        }
    }
    public.iter().map(|address| *address.get_ref()).collect()
}

/// The addresses that NAT gateways, pools and NICs present.
pub(super) fn presented(document: &document::Document) -> impl Iterator<Item = &Spanned<IpAddr>> {
    let gateways = document.nat_gateways.iter().flat_map(|gateway| gateway.get_ref().public_addresses.iter());
    let pools = document.snat_pools.iter().flat_map(|pool| pool.get_ref().addresses.iter());
    let nics = document.nics.iter().flat_map(|nic| nic.get_ref().public_addresses.iter());
    gateways.chain(pools).chain(nics)
}

/// An address that is presented is nobody else's: a reply to it has to find one way back.
pub(super) fn addresses(context: Context<'_>) {
    let document = context.document;
    let internet = || document.internet.iter().flat_map(|internet| internet.get_ref().public_addresses.iter());
    let mut seen = Unique::new("address");
    let services = document.services.iter().flat_map(|service| service.get_ref().addresses.iter());
    for address in internet().chain(services) {
        seen.reserve(*address.get_ref(), address.span());
    }
    for address in presented(document) {
        seen.note(*address.get_ref(), &address.get_ref().to_string(), address.span(), context.report);
    }
    let pools = document.snat_pools.iter().flat_map(|pool| pool.get_ref().addresses.iter());
    for address in pools {
        outside_networks(context, address);
    }
    let gateways = document.nat_gateways.iter().flat_map(|gateway| gateway.get_ref().public_addresses.iter());
    let nics = document.nics.iter().flat_map(|nic| nic.get_ref().public_addresses.iter());
    // One that is not public is a mistake already.
    for address in internet().chain(gateways).chain(nics).filter(|address| not_public(*address.get_ref()).is_none()) {
        outside_networks(context, address);
    }
}

fn outside_networks(context: Context<'_>, address: &Spanned<IpAddr>) {
    let found = context.address_spaces().find(|(_, range)| range.contains(address.get_ref()));
    if let Some((network, range)) = found {
        context.report.mistake_with_help(
            &address.span(),
            format!("the address `{}` is in `{range}` of virtual network `{network}`", address.get_ref()),
            "take an address outside every virtual network",
        );
    }
}
