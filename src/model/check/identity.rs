//! Checks what `identity6` addresses are made of: prefixes and traffic tags.

use std::net::Ipv6Addr;

use ipnet::IpNet;
use toml::Spanned;

use super::Context;
use super::ranges::{overlap, refused};
use crate::model::document;
use crate::model::names::Unique;
use crate::model::network::Identity;

/// A virtual network's tag in the document: the upper 8 of its 32 bits are the region's.
const NETWORK_TAG: std::ops::RangeInclusive<i64> = 0..=0x00ff_ffff;
/// A subnet's tag; 0 is none.
const SUBNET_TAG: std::ops::RangeInclusive<i64> = 1..=0xffff;

/// Checks `[identity]`, and that nothing else has its addresses if they are used.
pub(super) fn identity(context: Context<'_>) -> Identity {
    let default = Identity::default();
    let written = context.document.identity.as_ref().map(Spanned::get_ref);
    let of = |prefix: Option<&Spanned<IpNet>>, what, length| prefix.and_then(|it| fixed(context, it, what, length));
    let prefix = written.and_then(|written| written.prefix.as_ref());
    let destination = written.and_then(|written| written.destination_prefix.as_ref());
    let identity = Identity {
        prefix: of(prefix, "prefix", 32).unwrap_or(default.prefix),
        destination_prefix: of(destination, "destination_prefix", 96).unwrap_or(default.destination_prefix),
    };
    if let Some(place) = destination.filter(|_| identity.destination_prefix.octets()[8] != 0) {
        context.report.mistake_with_help(
            &place.span(),
            format!("the prefix `{}` has bits 64 to 71 set, which RFC 6052 wants clear", place.get_ref()),
            "write \"64:ff9b::/96\", or a /96 whose bits 64 to 71 are clear",
        );
    }
    // Without a place of their own the prefixes are judged where they are used first.
    let used = sources(context).find(|source| matches!(source.get_ref(), document::Source::Identity6));
    let used = used.map(Spanned::span);
    for (address, length, written) in [(identity.prefix, 32, prefix), (identity.destination_prefix, 96, destination)] {
        let (Some(place), Ok(prefix)) =
            (written.map(Spanned::span).or_else(|| used.clone()), IpNet::new(address.into(), length))
        else {
            continue;
        };
        if let Some((network, range)) = context.address_spaces().find(|(_, range)| overlap(range, &prefix)) {
            context.report.mistake_with_help(
                &place,
                format!("the identity prefix `{prefix}` overlaps `{range}` of virtual network `{network}`"),
                "give [identity] prefixes that nothing else has",
            );
        }
    }
    if let (Some(place), Ok(outer)) = (prefix.or(destination), IpNet::new(identity.prefix.into(), 32))
        && outer.contains(&std::net::IpAddr::V6(identity.destination_prefix))
    {
        context.report.mistake_with_help(
            &place.span(),
            format!("the identity prefix `{outer}` contains the destination prefix"),
            "give sources and destinations prefixes of their own",
        );
    }
    identity
}

/// Every `source` of an endpoint.
fn sources(context: Context<'_>) -> impl Iterator<Item = &Spanned<document::Source>> {
    let subnets = context.document.virtual_networks.iter().flat_map(|network| network.get_ref().subnets.iter());
    let endpoints = subnets.flat_map(|subnet| subnet.get_ref().service_endpoints.iter());
    endpoints.filter_map(|endpoint| endpoint.get_ref().source.as_ref())
}

/// An IPv6 prefix of one length.
fn fixed(context: Context<'_>, written: &Spanned<IpNet>, what: &str, length: u8) -> Option<Ipv6Addr> {
    let prefix = *written.get_ref();
    let IpNet::V6(v6) = prefix else {
        let message = format!("`{what}` is not an IPv6 prefix: {prefix}");
        context.report.mistake_with_help(&written.span(), message, format!("write an IPv6 /{length}"));
        return None;
    };
    if prefix.prefix_len() != length {
        let message = format!("`{what}` is not a /{length}: {prefix}");
        let help = IpNet::new(prefix.addr(), length).map(|prefix| format!("write \"{}\"", prefix.trunc()));
        context.report.add(&written.span(), message, help.ok());
        return None;
    }
    if let Some((range, kind)) = refused(&prefix) {
        let message = format!("`{what}` overlaps `{range}` ({kind})");
        context.report.mistake_with_help(&written.span(), message, "take a private prefix, such as one of fd00::/8");
        return None;
    }
    Some(v6.network())
}

/// The traffic tag of a virtual network.
pub(super) fn network_tag(
    context: Context<'_>,
    written: &document::VirtualNetwork,
    seen: &mut Unique<i64>,
) -> Option<u32> {
    u32::try_from(tag(context, &written.traffic_tag, NETWORK_TAG, seen)?).ok()
}

/// The traffic tag of a subnet.
pub(super) fn subnet_tag(context: Context<'_>, written: &document::Subnet, seen: &mut Unique<i64>) -> Option<u16> {
    u16::try_from(tag(context, &written.traffic_tag, SUBNET_TAG, seen)?).ok()
}

fn tag(
    context: Context<'_>,
    written: &Option<Spanned<i64>>,
    range: std::ops::RangeInclusive<i64>,
    seen: &mut Unique<i64>,
) -> Option<i64> {
    let tag = context.integer(written, "traffic_tag", range)?;
    if let Some(written) = written {
        seen.note(tag, &tag.to_string(), written.span(), context.report);
    }
    Some(tag)
}
