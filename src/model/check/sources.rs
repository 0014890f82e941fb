//! Checks how endpoints present their traffic: `source` of a service endpoint.

use ipnet::IpNet;
use toml::Spanned;

use super::ranges::{overlap, refused};
use super::{Context, shown, translation};
use crate::model::document;
use crate::model::network::EndpointSource;
use crate::model::read::List;

/// Checks the `source` of an endpoint of a subnet, which messages call `name`.
pub(super) fn endpoint_source(
    context: Context<'_>,
    name: &str,
    subnet: &document::Subnet,
    written: &Option<Spanned<document::Source>>,
) -> EndpointSource {
    let Some(written) = written else { return EndpointSource::Private };
    match written.get_ref() {
        document::Source::Private => EndpointSource::Private,
        document::Source::Identity6 => {
            let prefixes = &subnet.address_prefixes;
            if prefixes.complete && !prefixes.is_empty() && !prefixes.iter().any(|prefix| is_v4(prefix.get_ref())) {
                context.report.mistake_with_help(
                    &written.span(),
                    format!("the subnet `{name}` has no IPv4 prefix, and identity6 carries IPv4 addresses"),
                    "write source = \"private\"",
                );
            }
            EndpointSource::Identity6
        }
        document::Source::PrefixMap(targets) => {
            EndpointSource::PrefixMap(pairs(context, name, subnet, targets.span(), &targets.get_ref().0))
        }
        document::Source::Snat(pool) => context.resolve_snat_pool(pool).map(EndpointSource::Snat).unwrap_or_default(),
    }
}

fn is_v4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}

/// The prefixes of a subnet with those that they are mapped to: the first of a family to the first, and so on.
fn pairs(
    context: Context<'_>,
    name: &str,
    subnet: &document::Subnet,
    place: std::ops::Range<usize>,
    targets: &List<IpNet>,
) -> Vec<(IpNet, IpNet)> {
    if targets.is_empty() && targets.complete {
        context.report.mistake_with_help(
            &place,
            "a prefix_map without prefixes denies everything",
            "write a prefix for each of the subnet, such as \"100.64.8.0/24\"",
        );
    }
    for target in targets.iter() {
        if let Some((range, what)) = refused(target.get_ref()) {
            let message = format!("the prefix `{}` overlaps `{range}` ({what})", target.get_ref());
            context.report.mistake(&target.span(), message);
        }
    }
    let mut pairs = Vec::new();
    for v4 in [true, false] {
        let own = subnet.address_prefixes.iter().map(|prefix| *prefix.get_ref());
        let own: Vec<IpNet> = own.filter(|prefix| is_v4(prefix) == v4).collect();
        let to: Vec<_> = targets.iter().filter(|target| is_v4(target.get_ref()) == v4).collect();
        if to.is_empty() {
            continue;
        }
        let family = if v4 { "IPv4" } else { "IPv6" };
        if own.len() != to.len() && targets.complete && subnet.address_prefixes.complete {
            let list: Vec<String> = own.iter().map(IpNet::to_string).collect();
            context.report.mistake_with_help(
                &place,
                format!("the subnet `{name}` has {} {family} prefixes, and prefix_map {}", own.len(), to.len()),
                match own.len() {
                    0 => format!("remove the {family} prefixes"),
                    _ => format!("write one for each of {}, in this order", list.join(", ")),
                },
            );
            continue;
        }
        for (from, to) in own.into_iter().zip(to) {
            let (place, to) = (to.span(), *to.get_ref());
            if from.prefix_len() != to.prefix_len() {
                let right = IpNet::new(to.addr(), from.prefix_len()).map_or(from, |prefix| prefix.trunc());
                context.report.mistake_with_help(
                    &place,
                    format!("the prefix `{to}` is not as long as `{from}` of subnet `{name}`, which is mapped to it"),
                    format!("write \"{right}\""),
                );
            }
            pairs.push((from, to));
        }
    }
    pairs
}

/// A prefix that a subnet is mapped to.
struct Target<'a> {
    prefix: &'a Spanned<IpNet>,
    /// Network and subnet, and its place among the prefixes of the map: endpoints of one subnet may share a map.
    whose: (usize, usize, usize),
}

/// A prefix that a subnet is mapped to is nobody else's: a reply to it has to find one way back.
pub(super) fn prefix_maps(context: Context<'_>) {
    let mut known: Vec<Target<'_>> = Vec::new();
    for (network, written) in context.document.virtual_networks.iter().enumerate() {
        for (subnet, written) in written.get_ref().subnets.iter().enumerate() {
            for endpoint in written.get_ref().service_endpoints.iter() {
                let source = endpoint.get_ref().source.as_ref().map(Spanned::get_ref);
                let Some(document::Source::PrefixMap(targets)) = source else { continue };
                for (index, prefix) in targets.get_ref().0.iter().enumerate() {
                    let target = Target { prefix, whose: (network, subnet, index) };
                    distinct(context, &target, &known);
                    known.push(target);
                }
            }
        }
    }
}

fn distinct(context: Context<'_>, target: &Target<'_>, known: &[Target<'_>]) {
    let (place, prefix) = (target.prefix.span(), target.prefix.get_ref());
    let same = |other: &Target<'_>| other.whose == target.whose && other.prefix.get_ref() == prefix;
    let other = known.iter().filter(|other| !same(other)).find(|other| overlap(other.prefix.get_ref(), prefix));
    if let Some(other) = other {
        let (network, subnet, _) = other.whose;
        let subnet = shown(&context.network(network).subnets[subnet].get_ref().name);
        let line = context.report.line(&other.prefix.span());
        context.report.mistake_with_help(
            &place,
            format!(
                "the prefix `{prefix}` overlaps `{}`, which `{}/{subnet}` is mapped to",
                other.prefix.get_ref(),
                context.network_name(network)
            ),
            format!("the other one is in line {line}; take a prefix of its own for each subnet"),
        );
    } else if let Some((network, range)) = context.address_spaces().find(|(_, range)| overlap(range, prefix)) {
        context.report.mistake_with_help(
            &place,
            format!("the prefix `{prefix}` overlaps `{range}` of virtual network `{network}`"),
            "map to a prefix outside every virtual network",
        );
    } else if let Some(address) =
        translation::presented(context.document).find(|address| prefix.contains(address.get_ref()))
    {
        let line = context.report.line(&address.span());
        context.report.mistake_with_help(
            &place,
            format!("the prefix `{prefix}` contains the address `{}`", address.get_ref()),
            format!("the address is in line {line}; map to a prefix without it"),
        );
    }
}
