//! Checks firewalls of services and resources: rules, limits, what a denied sender gets.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;

use super::ranges::{not_public, overlap};
use super::{Context, shown};
use crate::model::document;
use crate::model::names::{Unique, nearest, region};
use crate::model::network::{Access, Denial, Firewall, SubnetRef, VirtualNetworkRule};
use crate::model::read::List;

/// How many rules a resource of a service has at most: virtual network rules and IP rules (Azure, the pages of the
/// services; where a page gives one number for both together it stands for each).
const LIMITS: [(&str, usize, usize); 11] = [
    ("Microsoft.Storage", 400, 400),
    ("Microsoft.Storage.Global", 400, 400),
    ("Microsoft.Sql", 128, 128),
    ("Microsoft.AzureCosmosDB", 64, 256),
    ("Microsoft.KeyVault", 200, 1_000),
    ("Microsoft.ServiceBus", 128, 128),
    ("Microsoft.EventHub", 128, 128),
    ("Microsoft.AzureActiveDirectory", 100, 100),
    ("Microsoft.Web", 512, 512),
    ("Microsoft.CognitiveServices", 100, 100),
    ("Microsoft.ContainerRegistry", 100, 100),
];

/// Subscriptions and regions of the resources of one service that have rules for one virtual network (Azure, "Virtual
/// network service endpoints").
const MAX_PLACES: usize = 200;
/// Resource instances of one firewall (Azure, "Configure Azure Storage firewalls and virtual networks").
const MAX_INSTANCES: usize = 200;

/// Checks the firewall of a resource of a service.
pub(super) fn firewall(
    context: Context<'_>,
    service: &str,
    written: &Option<Spanned<document::Firewall>>,
) -> Option<Firewall> {
    let written = written.as_ref()?.get_ref();
    let (_, networks, addresses) = LIMITS.into_iter().find(|(name, ..)| *name == service).unwrap_or(("", 400, 400));
    let of = format!("of one `{service}`");
    context.at_most(networks, &written.virtual_network_rules, &format!("virtual network rules {of}"));
    context.at_most(addresses, &written.ip_rules, &format!("IP rules {of}"));
    context.at_most(MAX_INSTANCES, &written.resource_access_rules, &format!("resource access rules {of}"));
    let enabled = [("Enabled", true), ("Disabled", false)];
    let denials = [("reset", Denial::Reset), ("prohibited", Denial::Prohibited)];
    let default_action = context.access(&written.default_action, "default_action").unwrap_or(Access::Allow);
    let mut instances = Unique::new("resource access rule");
    for id in written.resource_access_rules.iter() {
        instances.note_name(id, context.report);
        resource_id(context, id);
    }
    let port = context.integer(&written.answering_port, "answering_port", 1..=65_535);
    Some(Firewall {
        public_network_access: context
            .word_of_any_case(&written.public_network_access, "public_network_access", &enabled)
            .unwrap_or(true),
        default_action,
        virtual_network_rules: virtual_network_rules(context, &written.virtual_network_rules),
        ip_rules: ip_rules(context, &written.ip_rules),
        bypass_azure_services: bypass(context, &written.bypass),
        resource_access_rules: written.resource_access_rules.iter().map(|id| id.get_ref().clone()).collect(),
        denial: context.word(&written.denial, "denial", &denials).unwrap_or_default(),
        answering_port: port.map(|port| port as u16),
    })
}

/// Reports what is no resource id.
pub(super) fn resource_id(context: Context<'_>, id: &document::Text) {
    if !id.get_ref().starts_with('/') {
        context.report.mistake_with_help(
            &id.span(),
            format!("`{}` is not a resource id", id.get_ref()),
            "a resource id starts with \"/subscriptions/\"",
        );
    }
}

/// Rules name subnets. One that is gone leaves its rules behind, as on Azure: the rule admits nobody, and is no mistake. A
/// virtual network that is not there, or a name that is nearly that of a subnet, is one.
fn virtual_network_rules(
    context: Context<'_>,
    written: &List<document::VirtualNetworkRule>,
) -> Vec<VirtualNetworkRule> {
    let mut seen = Unique::new("virtual network rule");
    let mut checked = Vec::new();
    for rule in written.iter().map(Spanned::get_ref) {
        let Some(name) = &rule.subnet else { continue };
        seen.note_name(name, context.report);
        let Some((network, subnet)) = name.get_ref().split_once('/') else {
            context.report.mistake_with_help(
                &name.span(),
                format!("`{}` is not the name of a subnet", name.get_ref()),
                "write the virtual network and the subnet: \"network/subnet\"",
            );
            continue;
        };
        let Some(network) = context.resolve_network(&Spanned::new(name.span(), network.to_owned())) else { continue };
        let subnets = &context.network(network).subnets;
        let names = || subnets.iter().filter_map(|subnet| subnet.get_ref().name.as_ref());
        let found = subnets.iter().position(|known| {
            known.get_ref().name.as_ref().is_some_and(|known| known.get_ref().eq_ignore_ascii_case(subnet))
        });
        let near = nearest(subnet, names().map(|name| name.get_ref().as_str())).filter(|_| found.is_none());
        if let Some(near) = near {
            let network = context.network_name(network);
            context.report.mistake_with_help(
                &name.span(),
                format!("unknown subnet `{subnet}` of virtual network `{network}`"),
                format!("did you mean `{network}/{near}`?"),
            );
        }
        checked.push(VirtualNetworkRule {
            name: name.get_ref().clone(),
            subnet: found.map(|subnet| SubnetRef { virtual_network: network, subnet }),
            ignore_missing_endpoint: rule.ignore_missing_endpoint,
        });
    }
    checked
}

/// Public IPv4 prefixes, larger than two addresses, and single addresses.
fn ip_rules(context: Context<'_>, written: &List<String>) -> Vec<Ipv4Net> {
    let mut seen: Vec<(Ipv4Net, Range<usize>)> = Vec::new();
    for rule in written.iter() {
        let (text, place) = (rule.get_ref(), rule.span());
        let Some(prefix) = ip_rule(context, rule) else { continue };
        if let Some(range) = refused(prefix) {
            context.report.mistake_with_help(
                &place,
                format!("the IP rule `{text}` is not public: it is {range}"),
                "IP rules are for public addresses: private ones come in by virtual network rules",
            );
            continue;
        }
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == prefix) {
            let line = context.report.line(first);
            let message = format!("the IP rule `{text}` is there twice");
            context.report.mistake_with_help(&place, message, format!("the first one is in line {line}"));
        }
        seen.push((prefix, place));
    }
    seen.into_iter().map(|(prefix, _)| prefix).collect()
}

fn ip_rule(context: Context<'_>, rule: &document::Text) -> Option<Ipv4Net> {
    let (text, place) = (rule.get_ref(), rule.span());
    let address: Result<std::net::IpAddr, _> = text.parse();
    let prefix: Result<IpNet, _> = text.parse();
    match (address, prefix) {
        (Ok(std::net::IpAddr::V4(address)), _) => Some(Ipv4Net::from(address)),
        (Ok(_), _) | (_, Ok(IpNet::V6(_))) => {
            let message = format!("the IP rule `{text}` is IPv6, which firewalls of services do not take");
            context.report.mistake_with_help(&place, message, "write public IPv4 addresses");
            None
        }
        (_, Ok(IpNet::V4(prefix))) if prefix.prefix_len() > 30 => {
            let addresses: Vec<String> = prefix.trunc().hosts().map(|host| format!("\"{host}\"")).collect();
            context.report.mistake_with_help(
                &place,
                format!("the IP rule `{text}` is a /{}, which firewalls of services do not take", prefix.prefix_len()),
                format!("write single addresses: {}", addresses.join(", ")),
            );
            None
        }
        (_, Ok(IpNet::V4(prefix))) => {
            if prefix.trunc() != prefix {
                context.report.mistake_with_help(
                    &place,
                    format!("the prefix `{text}` has host bits set"),
                    format!("write \"{}\"", prefix.trunc()),
                );
            }
            Some(prefix.trunc())
        }
        _ => {
            context.report.mistake_with_help(
                &place,
                format!("`{text}` is not an address or a prefix"),
                "write a public IPv4 address or prefix such as \"203.0.113.10\" or \"203.0.113.0/24\"",
            );
            None
        }
    }
}

/// The range that a prefix touches which is not public.
fn refused(prefix: Ipv4Net) -> Option<&'static str> {
    let first = not_public(prefix.network().into());
    first.or_else(|| not_public(prefix.broadcast().into())).or_else(|| {
        let prefix = IpNet::V4(prefix);
        super::ranges::REFUSED.iter().find(|(range, _)| overlap(range, &prefix)).map(|(_, what)| *what)
    })
}

/// Who comes in whatever the rules say. Callers that Azure trusts are NICs with `trusted_service`; who reads logs and
/// metrics shows in the request alone, which no packet filter sees.
fn bypass(context: Context<'_>, written: &List<String>) -> bool {
    let mut services = false;
    for word in written.iter() {
        let text = word.get_ref();
        if text.eq_ignore_ascii_case("AzureServices") {
            services = true;
        } else if text.eq_ignore_ascii_case("Logging") || text.eq_ignore_ascii_case("Metrics") {
            context.report.mistake_with_help(
                &word.span(),
                format!("bypass `{text}` cannot be enforced: it is for requests, which packets do not tell apart"),
                "remove it",
            );
        } else if !(text.eq_ignore_ascii_case("None") && written.len() == 1) {
            context.report.mistake_with_help(
                &word.span(),
                format!("unknown bypass `{text}`"),
                "write \"AzureServices\", or [] for none",
            );
        }
    }
    services
}

/// Reports the service whose resources in too many subscriptions and regions have rules for one virtual network.
pub(super) fn places(context: Context<'_>, home: &str) {
    let mut places: HashMap<(String, usize), HashSet<(String, String)>> = HashMap::new();
    for written in context.document.services.iter().map(Spanned::get_ref) {
        let location = written.location.as_ref().map_or_else(|| home.to_owned(), region);
        let service = shown(&written.service).to_ascii_lowercase();
        let resources = written.resources.iter().map(Spanned::get_ref);
        let own = std::iter::once((&written.id, &written.firewall));
        for (id, firewall) in own.chain(resources.map(|resource| (&resource.id, &resource.firewall))) {
            let Some(firewall) = firewall else { continue };
            let subscription = id.as_ref().and_then(|id| id.get_ref().split('/').nth(2)).unwrap_or_default();
            for rule in firewall.get_ref().virtual_network_rules.iter() {
                let Some(name) = &rule.get_ref().subnet else { continue };
                let network = name.get_ref().split_once('/').and_then(|(network, _)| context.find_network(network));
                let Some(network) = network else { continue };
                let known = places.entry((service.clone(), network)).or_default();
                let before = known.len();
                known.insert((subscription.to_ascii_lowercase(), location.clone()));
                if before == MAX_PLACES && known.len() > MAX_PLACES {
                    let message = format!(
                        "resources of `{}` in more than {MAX_PLACES} subscriptions and regions have rules for `{}`",
                        shown(&written.service),
                        context.network_name(network)
                    );
                    context.report.mistake(&name.span(), message);
                }
            }
        }
    }
}
