//! Checks security groups: names, rules and what they name, limits.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;
use toml::Spanned;

use super::{Context, shown, text};
use crate::model::document::{self, DESTINATION, RuleSide, SOURCE, SideKeys};
use crate::model::names::{Unique, check_resource_name, did_you_mean, nearest};
use crate::model::network::{
    Access, ApplicationSecurityGroup, Direction, NetworkSecurityGroup, RuleAddresses, RuleProtocol, RuleTag,
    SecurityRule,
};
use crate::model::read::{List, parse_prefix};

/// Network security groups of one subscription and region (Azure, networking limits, as the others here).
const MAX_GROUPS: usize = 5_000;
/// Rules of one group.
const MAX_RULES: usize = 1_000;
/// Addresses and ranges of all rules of one group, source and destination each.
const MAX_ADDRESSES: usize = 4_000;
/// Application security groups of one subscription and region.
const MAX_APPLICATION_GROUPS: usize = 3_000;
/// Application security groups of one side of a rule.
const MAX_APPLICATION_GROUPS_OF_SIDE: usize = 10;
/// Application security groups of all rules of one group.
const MAX_APPLICATION_GROUPS_OF_GROUP: usize = 100;
/// Addresses of NICs in one application security group.
const MAX_MEMBERS: usize = 4_000;
/// Characters of a description.
pub(super) const MAX_DESCRIPTION: usize = 140;
/// Priorities that rules may have; default rules come behind.
const PRIORITY: RangeInclusive<i64> = 100..=4096;

/// What the computed tags may be called: as they are now, or as the classic deployment model spelled them.
const COMPUTED: [(&str, RuleTag); 8] = [
    ("VirtualNetwork", RuleTag::VirtualNetwork),
    ("VIRTUAL_NETWORK", RuleTag::VirtualNetwork),
    ("Internet", RuleTag::Internet),
    ("AzureLoadBalancer", RuleTag::AzureLoadBalancer),
    ("AZURE_LOADBALANCER", RuleTag::AzureLoadBalancer),
    ("AZURELOADBALANCER", RuleTag::AzureLoadBalancer),
    ("AzurePlatformDNS", RuleTag::AzurePlatformDns),
    ("AzurePlatformIMDS", RuleTag::AzurePlatformImds),
];

/// A tag that Azure has and this network cannot: its addresses are published nowhere.
const PLATFORM_LKM: &str = "AzurePlatformLKM";

/// Checks all application security groups. The members of one are NICs of one virtual network.
pub(super) fn application_security_groups(context: Context<'_>) -> Vec<ApplicationSecurityGroup> {
    let groups = &context.document.application_security_groups;
    context.at_most(MAX_APPLICATION_GROUPS, groups, "application security groups");
    let mut names = Unique::new("application security group");
    for group in groups.iter() {
        check_name(context, &group.get_ref().name, &mut names);
    }
    members(context);
    groups.iter().map(|group| ApplicationSecurityGroup { name: text(&group.get_ref().name) }).collect()
}

fn members(context: Context<'_>) {
    let mut homes: HashMap<usize, usize> = HashMap::new();
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for nic in context.document.nics.iter().map(Spanned::get_ref) {
        let network = nic.subnet.as_ref().and_then(|subnet| {
            let (network, _) = subnet.get_ref().split_once('/')?;
            context.find_network(network)
        });
        for name in nic.application_security_groups.iter() {
            let Some(group) = context.find_application_security_group(name.get_ref()) else { continue };
            let count = counts.entry(group).or_default();
            let before = *count;
            *count += nic.private_addresses.len();
            if before <= MAX_MEMBERS && *count > MAX_MEMBERS {
                let message = format!(
                    "the application security group `{}` has more than {MAX_MEMBERS} addresses",
                    name.get_ref()
                );
                context.report.mistake(&name.span(), message);
            }
            let Some(network) = network else { continue };
            let home = *homes.entry(group).or_insert(network);
            if home != network {
                context.report.mistake_with_help(
                    &name.span(),
                    format!(
                        "the application security group `{}` has NICs of `{}` and `{}`",
                        name.get_ref(),
                        context.network_name(home),
                        context.network_name(network)
                    ),
                    "the NICs of an application security group are in one virtual network: make one for each",
                );
            }
        }
    }
}

/// The network security group that a subnet or a NIC names.
pub(super) fn of(context: Context<'_>, written: &Option<document::Text>) -> Option<usize> {
    let name = written.as_ref()?;
    let found = context.find_network_security_group(name.get_ref());
    let groups = &context.document.network_security_groups;
    if found.is_none() && groups.complete {
        context.unknown("network security group", name, groups.iter().map(|group| &group.get_ref().name));
    }
    found
}

/// The application security groups that a list names.
pub(super) fn application_groups(context: Context<'_>, written: &List<String>) -> Vec<usize> {
    let mut seen = Unique::new("application security group");
    let groups = &context.document.application_security_groups;
    let found = written.iter().filter_map(|name| {
        seen.note_name(name, context.report);
        let found = context.find_application_security_group(name.get_ref());
        if found.is_none() && groups.complete {
            context.unknown("application security group", name, groups.iter().map(|group| &group.get_ref().name));
        }
        found
    });
    found.collect()
}

/// Checks all network security groups.
pub(super) fn network_security_groups(context: Context<'_>) -> Vec<NetworkSecurityGroup> {
    let groups = &context.document.network_security_groups;
    context.at_most(MAX_GROUPS, groups, "network security groups");
    let mut names = Unique::new("network security group");
    let checked = groups.iter().map(Spanned::get_ref).map(|written| {
        check_name(context, &written.name, &mut names);
        NetworkSecurityGroup {
            name: text(&written.name),
            flush_connection: written.flush_connection,
            security_rules: rules(context, written),
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

fn rules(context: Context<'_>, group: &document::NetworkSecurityGroup) -> Vec<SecurityRule> {
    let group_name = shown(&group.name);
    context.at_most(MAX_RULES, &group.security_rules, &format!("rules of network security group `{group_name}`"));
    let mut names = Unique::new("security rule");
    let mut priorities = Unique::new("priority");
    let mut totals = [Total::new("source addresses"), Total::new("destination addresses")];
    let mut groups = Total { limit: MAX_APPLICATION_GROUPS_OF_GROUP, ..Total::new("application security groups") };
    let mut checked = Vec::new();
    for rule in &*group.security_rules {
        let (place, rule) = (rule.span(), rule.get_ref());
        check_name(context, &rule.name, &mut names);
        if let Some(text) = rule.description.as_ref().filter(|text| text.get_ref().chars().count() > MAX_DESCRIPTION) {
            context.report.mistake(&text.span(), format!("a description has {MAX_DESCRIPTION} characters at most"));
        }
        let direction = context.direction(&rule.direction);
        let priority = context.integer(&rule.priority, "priority", PRIORITY);
        if let (Some(direction), Some(priority), Some(written)) = (direction, priority, &rule.priority) {
            priorities.note((direction, priority), &priority.to_string(), written.span(), context.report);
        }
        let access = context.access(&rule.access, "access");
        let protocol = protocol(context, &rule.protocol);
        let source = addresses(context, &rule.source, &SOURCE, &mut totals[0], &mut groups, group_name);
        let destination = addresses(context, &rule.destination, &DESTINATION, &mut totals[1], &mut groups, group_name);
        let source_ports = ports(context, &rule.source, &SOURCE);
        let destination_ports = ports(context, &rule.destination, &DESTINATION);
        let with_ports = matches!(protocol, Some(RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Any));
        if with_ports && rule.destination.port_range.is_none() && rule.destination.port_ranges.is_none() {
            context.report.mistake_with_help(
                &place,
                format!("the rule `{}` does not say which ports it is for", shown(&rule.name)),
                "add destination_port_range = \"443\", or \"*\" for all",
            );
        }
        one_network(context, rule, &source, &destination);
        if let (Some(direction), Some(priority), Some(access), Some(protocol)) = (direction, priority, access, protocol)
        {
            checked.push(SecurityRule {
                name: text(&rule.name),
                priority: priority as u16,
                direction,
                access,
                protocol,
                source,
                destination,
                source_ports,
                destination_ports,
            });
        }
    }
    checked
}

/// Application security groups of both sides are of one virtual network.
fn one_network(
    context: Context<'_>,
    rule: &document::SecurityRule,
    source: &RuleAddresses,
    destination: &RuleAddresses,
) {
    let (RuleAddresses::ApplicationSecurityGroups(source), RuleAddresses::ApplicationSecurityGroups(destination)) =
        (source, destination)
    else {
        return;
    };
    let (Some(from), Some(to)) = (context.home(source), context.home(destination)) else { return };
    if let Some(place) = rule.destination.application_security_groups.as_ref().filter(|_| from != to) {
        context.report.mistake_with_help(
            &place.span(),
            format!(
                "the rule `{}` has application security groups of `{}` and `{}`",
                shown(&rule.name),
                context.network_name(from),
                context.network_name(to)
            ),
            "both sides are in one virtual network: write the addresses of the other",
        );
    }
}

fn protocol(context: Context<'_>, written: &Option<document::Text>) -> Option<RuleProtocol> {
    let words = [
        ("*", RuleProtocol::Any),
        ("Tcp", RuleProtocol::Tcp),
        ("Udp", RuleProtocol::Udp),
        ("Icmp", RuleProtocol::Icmp),
        ("Esp", RuleProtocol::Esp),
        ("Ah", RuleProtocol::Ah),
    ];
    context.word_of_any_case(written, "protocol", &words)
}

/// What is counted over a group.
struct Total {
    what: &'static str,
    limit: usize,
    count: usize,
}

impl Total {
    fn new(what: &'static str) -> Self {
        Self { what, limit: MAX_ADDRESSES, count: 0 }
    }

    fn add(&mut self, context: Context<'_>, number: usize, place: &Range<usize>, group: &str) {
        let before = self.count;
        self.count += number;
        if before <= self.limit && self.count > self.limit {
            let message = format!("the network security group `{group}` has more than {} {}", self.limit, self.what);
            context.report.mistake(place, message);
        }
    }
}

/// The addresses of one side.
fn addresses(
    context: Context<'_>,
    side: &RuleSide,
    keys: &SideKeys,
    total: &mut Total,
    groups: &mut Total,
    group: &str,
) -> RuleAddresses {
    let given = [
        side.address_prefix.as_ref().map(|one| (keys.address_prefix, one.span())),
        side.address_prefixes.as_ref().map(|list| (keys.address_prefixes, list.span())),
        side.application_security_groups.as_ref().map(|list| (keys.application_security_groups, list.span())),
    ];
    let mut given = given.into_iter().flatten();
    if let (Some((first, _)), Some((second, place))) = (given.next(), given.next()) {
        let message = format!("a rule has one of `{first}` and `{second}`");
        context.report.mistake_with_help(&place, message, format!("remove `{second}`"));
    }
    if let Some(list) = &side.application_security_groups {
        filled(context, list, keys.application_security_groups);
        context.at_most(
            MAX_APPLICATION_GROUPS_OF_SIDE,
            list.get_ref(),
            "application security groups of one side of a rule",
        );
        groups.add(context, list.get_ref().len(), &list.span(), group);
        return RuleAddresses::ApplicationSecurityGroups(application_groups(context, list.get_ref()));
    }
    let mut prefixes = Vec::new();
    let mut tag: Option<RuleTag> = None;
    let mut any = side.address_prefix.is_none() && side.address_prefixes.is_none();
    if let Some(list) = &side.address_prefixes {
        filled(context, list, keys.address_prefixes);
        total.add(context, list.get_ref().len(), &list.span(), group);
    } else {
        total.add(context, 1, &side.address_prefix.as_ref().map(Spanned::span).unwrap_or_default(), group);
    }
    let list = side.address_prefixes.iter().flat_map(|list| list.get_ref().iter());
    let several = side.address_prefixes.as_ref().is_some_and(|list| list.get_ref().len() > 1);
    for written in side.address_prefix.iter().chain(list) {
        match address(context, written) {
            Some(Written::Any) if several => context.report.mistake_with_help(
                &written.span(),
                "`*` stands for every address, and there are others beside it",
                "remove the others, or the `*`",
            ),
            Some(Written::Any) => any = true,
            Some(Written::Prefix(prefix)) => prefixes.push(prefix),
            Some(Written::Tag(_)) if tag.is_some() => context.report.mistake_with_help(
                &written.span(),
                format!("`{}` is a second service tag, and a rule has one on each side", written.get_ref()),
                "make a rule of its own for it",
            ),
            Some(Written::Tag(found)) => tag = Some(found),
            None => {}
        }
    }
    if any { RuleAddresses::Any } else { RuleAddresses::Listed { prefixes, tag } }
}

fn filled<T>(context: Context<'_>, list: &Spanned<List<T>>, key: &str) {
    if list.get_ref().is_empty() && list.get_ref().complete {
        context.report.mistake_with_help(
            &list.span(),
            format!("`{key}` of a security rule must not be empty"),
            "a rule that takes nothing has no effect: fill it, or remove the rule",
        );
    }
}

/// What may be written for an address.
enum Written {
    Any,
    Prefix(IpNet),
    Tag(RuleTag),
}

/// `*`, an address, a prefix or a tag. No tag starts with a digit or has a colon or slash.
fn address(context: Context<'_>, written: &document::Text) -> Option<Written> {
    let (name, place) = (written.get_ref(), written.span());
    if name == "*" {
        return Some(Written::Any);
    }
    if let Ok(address) = name.parse() {
        return Some(Written::Prefix(IpNet::new_assert(address, if address.is_ipv4() { 32 } else { 128 })));
    }
    if name.contains(['/', ':']) || name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        return parse_prefix(name, &place, context.report).map(Written::Prefix);
    }
    if let Some((_, tag)) = COMPUTED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        return Some(Written::Tag(tag.clone()));
    }
    if name.eq_ignore_ascii_case(PLATFORM_LKM) {
        context.report.mistake_with_help(
            &place,
            format!("the service tag `{PLATFORM_LKM}` has no published addresses"),
            "write the addresses of the licensing service that are meant",
        );
        return None;
    }
    match context.tags {
        Some(tags) if !tags.contains(name) => {
            let computed = nearest(name, COMPUTED.iter().map(|(known, _)| *known)).map(str::to_owned);
            let help = did_you_mean(tags.nearest(name).or(computed).as_deref());
            context.report.add(&place, format!("unknown service tag `{name}`"), help);
        }
        Some(tags) if !tags.usable_in_rules(name) => context.report.mistake_with_help(
            &place,
            format!("the service tag `{name}` cannot be used in security rules"),
            "the catalogue lists no NSG among its networkFeatures: write prefixes, or take another tag",
        ),
        None if context.document.tags.is_none() => context.report.mistake_with_help(
            &place,
            format!("the service tag `{name}` needs a catalogue"),
            "name one: tags = \"FILE\"; or write a prefix such as \"10.0.0.0/8\"",
        ),
        _ => {}
    }
    Some(Written::Tag(RuleTag::Catalogue(name.clone())))
}

/// The ports of one side; none means all.
fn ports(context: Context<'_>, side: &RuleSide, keys: &SideKeys) -> Vec<RangeInclusive<u16>> {
    if let (Some(_), Some(list)) = (&side.port_range, &side.port_ranges) {
        let message = format!("a rule has one of `{}` and `{}`", keys.port_range, keys.port_ranges);
        context.report.mistake_with_help(&list.span(), message, format!("remove `{}`", keys.port_ranges));
    }
    if let Some(list) = &side.port_ranges {
        filled(context, list, keys.port_ranges);
    }
    let list = side.port_ranges.iter().flat_map(|list| list.get_ref().iter());
    let mut ranges = Vec::new();
    for written in side.port_range.iter().chain(list) {
        if written.get_ref() == "*" {
            return Vec::new();
        }
        ranges.extend(port_range(context, written));
    }
    ranges
}

fn port_range(context: Context<'_>, written: &document::Text) -> Option<RangeInclusive<u16>> {
    let text = written.get_ref();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    // `+443` parses as a number, and is none.
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => {
            context.report.mistake_with_help(
                &written.span(),
                format!("`{text}` is not a port or a range of ports"),
                "write a port such as \"443\", a range such as \"1000-2000\", or \"*\"",
            );
            None
        }
    }
}

impl Context<'_> {
    /// `"Inbound"` or `"Outbound"`.
    fn direction(self, written: &Option<document::Text>) -> Option<Direction> {
        let words = [("Inbound", Direction::Inbound), ("Outbound", Direction::Outbound)];
        self.word_of_any_case(written, "direction", &words)
    }

    /// `"Allow"` or `"Deny"`.
    pub(super) fn access(self, written: &Option<document::Text>, what: &str) -> Option<Access> {
        self.word_of_any_case(written, what, &[("Allow", Access::Allow), ("Deny", Access::Deny)])
    }

    /// The network of the first NIC that is in one of some application security groups.
    fn home(self, groups: &[usize]) -> Option<usize> {
        let nics = self.document.nics.iter().map(Spanned::get_ref);
        let of_group = |nic: &&document::Nic| {
            let names = nic.application_security_groups.iter();
            names
                .filter_map(|name| self.find_application_security_group(name.get_ref()))
                .any(|group| groups.contains(&group))
        };
        let nic = nics.into_iter().find(of_group)?;
        let (network, _) = nic.subnet.as_ref()?.get_ref().split_once('/')?;
        self.find_network(network)
    }
}
