//! Validation: from the document as written to the [`Network`]. Every check runs, so that all mistakes of a document are
//! reported at once; what a check returns means something only if no mistake was reported.

mod devices;
mod firewalls;
mod flows;
mod hosts;
mod identity;
mod networks;
mod nsg;
mod policies;
mod ports;
mod ranges;
mod routes;
mod sources;
mod translation;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::Spanned;

use super::TagNames;
use super::document::{Document, RouteTable, Subnet, Text, VirtualNetwork};
use super::mistake::Report;
use super::names::{did_you_mean, location, nearest};
use super::network::{EndpointPrecedence, EndpointProtocols, IoMode, Network, PollMode, Semantics};
use devices::Devices;

/// What every check sees.
#[derive(Clone, Copy)]
struct Context<'a> {
    document: &'a Document,
    folder: &'a Path,
    tags: Option<&'a dyn TagNames>,
    report: &'a Report<'a>,
    index: &'a Index<'a>,
}

/// What is looked up often: a document may be as large as Azure's limits allow.
struct Index<'a> {
    /// Virtual networks by their names in lower case.
    networks: HashMap<String, usize>,
    /// Route tables by their names in lower case.
    route_tables: HashMap<String, usize>,
    /// NAT gateways by their names in lower case.
    nat_gateways: HashMap<String, usize>,
    /// SNAT pools by their names in lower case.
    snat_pools: HashMap<String, usize>,
    /// Application security groups by their names in lower case.
    application_security_groups: HashMap<String, usize>,
    /// Network security groups by their names in lower case.
    network_security_groups: HashMap<String, usize>,
    /// Service endpoint policies by their names in lower case.
    policies: HashMap<String, usize>,
    /// For each route table the subnets that use it, with the indices of their virtual networks.
    users: Vec<Vec<(usize, &'a Subnet)>>,
}

impl<'a> Index<'a> {
    fn new(document: &'a Document) -> Self {
        let networks = by_name(document.virtual_networks.iter().map(|network| &network.get_ref().name));
        let route_tables = by_name(document.route_tables.iter().map(|table| &table.get_ref().name));
        let mut users = vec![Vec::new(); document.route_tables.len()];
        for (network, written) in document.virtual_networks.iter().enumerate() {
            for subnet in written.get_ref().subnets.iter().map(Spanned::get_ref) {
                let table = subnet.route_table.as_ref().map(|name| name.get_ref().to_ascii_lowercase());
                if let Some(table) = table.and_then(|name| route_tables.get(&name)) {
                    users[*table].push((network, subnet));
                }
            }
        }
        let nat_gateways = by_name(document.nat_gateways.iter().map(|gateway| &gateway.get_ref().name));
        let snat_pools = by_name(document.snat_pools.iter().map(|pool| &pool.get_ref().name));
        let application_security_groups =
            by_name(document.application_security_groups.iter().map(|group| &group.get_ref().name));
        let network_security_groups =
            by_name(document.network_security_groups.iter().map(|group| &group.get_ref().name));
        let policies = by_name(document.service_endpoint_policies.iter().map(|policy| &policy.get_ref().name));
        Self {
            networks,
            route_tables,
            nat_gateways,
            snat_pools,
            application_security_groups,
            network_security_groups,
            policies,
            users,
        }
    }
}

/// Checks a document. `folder` is what relative paths are relative to.
pub(super) fn check(document: &Document, folder: &Path, tags: Option<&dyn TagNames>, report: &Report<'_>) -> Network {
    let index = Index::new(document);
    let context = Context { document, folder, tags, report, index: &index };
    let location = document.location.as_ref().map(|written| location(written, tags, report)).unwrap_or_default();
    let mut devices = Devices::new();
    translation::addresses(context);
    sources::prefix_maps(context);
    firewalls::places(context, &location);
    Network {
        tags: document.tags.as_ref().and_then(|tags| context.path(tags)),
        io: context.io(),
        workers: context.workers(),
        poll: context.poll(),
        control: document.control.as_ref().and_then(|control| context.path(control)),
        semantics: context.semantics(),
        flows: flows::flows(context),
        identity: identity::identity(context),
        virtual_networks: networks::virtual_networks(context, &location),
        route_tables: routes::route_tables(context),
        nat_gateways: translation::nat_gateways(context),
        snat_pools: translation::snat_pools(context),
        application_security_groups: nsg::application_security_groups(context),
        network_security_groups: nsg::network_security_groups(context),
        service_endpoint_policies: policies::service_endpoint_policies(context),
        nics: ports::nics(context, &mut devices),
        gateway: ports::gateway(context, &mut devices),
        internet: ports::internet(context, &mut devices),
        backbone: ports::backbone(context, &mut devices),
        platform: ports::platform(context, &mut devices),
        services: ports::services(context, &location, &mut devices),
        lab: hosts::lab(context),
        location,
    }
}

impl<'a> Context<'a> {
    /// A path of the document, resolved against its folder.
    fn path(self, written: &Text) -> Option<PathBuf> {
        let text = written.get_ref();
        if text.is_empty() || text.contains('\0') {
            self.report.mistake(&written.span(), "this is not a path");
            return None;
        }
        Some(self.folder.join(text))
    }

    /// Picks the value of a word, or reports the word and lists those there are.
    fn word<T: Copy>(self, written: &Option<Text>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let written = written.as_ref()?;
        let found = words.iter().find(|(word, _)| word == written.get_ref());
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.report.mistake_with_help(
                &written.span(),
                format!("unknown {what} `{}`", written.get_ref()),
                format!("write {}", known.join(" or ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// The same for words whose case does not count, as Azure's own.
    fn word_of_any_case<T: Copy>(self, written: &Option<Text>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let written = written.as_ref()?;
        match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(written.get_ref())) {
            Some((_, value)) => Some(*value),
            None => self.word(&Some(written.clone()), what, words),
        }
    }

    fn io(self) -> IoMode {
        let words = [("offload", IoMode::Offload), ("plain", IoMode::Plain)];
        self.word(&self.document.io, "io mode", &words).unwrap_or_default()
    }

    fn poll(self) -> PollMode {
        let words = [("sleep", PollMode::Sleep), ("adaptive", PollMode::Adaptive)];
        self.word(&self.document.poll, "poll mode", &words).unwrap_or_default()
    }

    fn workers(self) -> u16 {
        self.integer(&self.document.workers, "workers", 1..=64).map_or(1, |workers| workers as u16)
    }

    /// An integer in a range, or a mistake.
    fn integer(self, written: &Option<Spanned<i64>>, what: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let written = written.as_ref()?;
        if range.contains(written.get_ref()) {
            return Some(*written.get_ref());
        }
        self.report.mistake_with_help(
            &written.span(),
            format!("`{what}` is out of range: {}", written.get_ref()),
            format!("write a number from {} to {}", range.start(), range.end()),
        );
        None
    }

    fn semantics(self) -> Semantics {
        let Some(written) = &self.document.semantics else {
            return Semantics::default();
        };
        let words =
            [("documented", EndpointPrecedence::Documented), ("longest-prefix", EndpointPrecedence::LongestPrefix)];
        let precedence = self.word(&written.get_ref().endpoint_precedence, "endpoint precedence", &words);
        Semantics {
            endpoint_precedence: precedence.unwrap_or_default(),
            endpoint_protocols: self.endpoint_protocols(written.get_ref()),
            nat_protocols: translation::nat_protocols(self, written.get_ref()),
        }
    }

    /// `"any"`, or a list of protocols by the keywords of IANA's registry "Assigned Internet Protocol Numbers".
    fn endpoint_protocols(self, semantics: &super::document::Semantics) -> EndpointProtocols {
        const PROTOCOLS: [(&str, u8); 8] =
            [("icmp", 1), ("tcp", 6), ("udp", 17), ("gre", 47), ("esp", 50), ("ah", 51), ("icmpv6", 58), ("sctp", 132)];
        let Some(written) = &semantics.endpoint_protocols else {
            return EndpointProtocols::Any;
        };
        let list = &written.get_ref().0;
        if list.len() == 1 && list[0].get_ref() == "any" {
            return EndpointProtocols::Any;
        }
        if list.is_empty() && list.complete {
            self.report.mistake_with_help(
                &written.span(),
                "an endpoint that steers no protocol has no effect",
                "write \"any\" or a list such as [\"tcp\"]",
            );
        }
        let mut numbers: Vec<u8> =
            list.iter().filter_map(|name| self.word(&Some(name.clone()), "protocol", &PROTOCOLS)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        EndpointProtocols::Only(numbers)
    }

    fn network(self, index: usize) -> &'a VirtualNetwork {
        self.document.virtual_networks[index].get_ref()
    }

    /// The name of a virtual network for messages.
    fn network_name(self, index: usize) -> &'a str {
        shown(&self.network(index).name)
    }

    /// Finds a virtual network by name; case does not count.
    fn find_network(self, name: &str) -> Option<usize> {
        self.index.networks.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds a virtual network by name, or reports that there is none.
    fn resolve_network(self, name: &Text) -> Option<usize> {
        let found = self.find_network(name.get_ref());
        let networks = &self.document.virtual_networks;
        if found.is_none() && networks.complete {
            self.unknown("virtual network", name, networks.iter().map(|network| &network.get_ref().name));
        }
        found
    }

    fn route_table(self, index: usize) -> &'a RouteTable {
        self.document.route_tables[index].get_ref()
    }

    /// Finds a route table by name, or reports that there is none.
    fn resolve_route_table(self, name: &Text) -> Option<usize> {
        let found = self.index.route_tables.get(&name.get_ref().to_ascii_lowercase()).copied();
        let tables = &self.document.route_tables;
        if found.is_none() && tables.complete {
            self.unknown("route table", name, tables.iter().map(|table| &table.get_ref().name));
        }
        found
    }

    /// Finds a NAT gateway by name; case does not count.
    fn find_nat_gateway(self, name: &str) -> Option<usize> {
        self.index.nat_gateways.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds a NAT gateway by name, or reports that there is none.
    fn resolve_nat_gateway(self, name: &Text) -> Option<usize> {
        let found = self.find_nat_gateway(name.get_ref());
        let gateways = &self.document.nat_gateways;
        if found.is_none() && gateways.complete {
            self.unknown("NAT gateway", name, gateways.iter().map(|gateway| &gateway.get_ref().name));
        }
        found
    }

    /// Finds an application security group by name; case does not count.
    fn find_application_security_group(self, name: &str) -> Option<usize> {
        self.index.application_security_groups.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds a network security group by name; case does not count.
    fn find_network_security_group(self, name: &str) -> Option<usize> {
        self.index.network_security_groups.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds a service endpoint policy by name; case does not count.
    fn find_policy(self, name: &str) -> Option<usize> {
        self.index.policies.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds a SNAT pool by name, or reports that there is none.
    fn resolve_snat_pool(self, name: &Text) -> Option<usize> {
        let found = self.index.snat_pools.get(&name.get_ref().to_ascii_lowercase()).copied();
        let pools = &self.document.snat_pools;
        if found.is_none() && pools.complete {
            self.unknown("SNAT pool", name, pools.iter().map(|pool| &pool.get_ref().name));
        }
        found
    }

    /// Every range of every address space, with the name of its network.
    fn address_spaces(self) -> impl Iterator<Item = (&'a str, IpNet)> {
        self.document
            .virtual_networks
            .iter()
            .map(Spanned::get_ref)
            .flat_map(|network| network.address_space.iter().map(|range| (shown(&network.name), *range.get_ref())))
    }

    /// Finds a subnet by `network/subnet`, or reports what of it is unknown.
    fn resolve_subnet(self, name: &Text) -> Option<(usize, usize)> {
        let Some((network, subnet)) = name.get_ref().split_once('/') else {
            self.report.mistake_with_help(
                &name.span(),
                format!("`{}` is not the name of a subnet", name.get_ref()),
                "write the virtual network and the subnet: \"network/subnet\"",
            );
            return None;
        };
        let index = self.resolve_network(&Spanned::new(name.span(), network.to_owned()))?;
        let subnets = &self.network(index).subnets;
        let is_it =
            |known: &Option<Text>| known.as_ref().is_some_and(|name| name.get_ref().eq_ignore_ascii_case(subnet));
        let found = subnets.iter().position(|known| is_it(&known.get_ref().name));
        let all_named = subnets.iter().all(|subnet| subnet.get_ref().name.is_some());
        if found.is_none() && subnets.complete && all_named {
            let known = subnets.iter().filter_map(|known| Some(known.get_ref().name.as_ref()?.get_ref().as_str()));
            let help =
                nearest(subnet, known).map(|near| format!("did you mean `{}/{near}`?", self.network_name(index)));
            let message = format!("unknown subnet `{subnet}` of virtual network `{}`", self.network_name(index));
            self.report.add(&name.span(), message, help);
        }
        Some((index, found?))
    }

    /// Reports a name that nothing has, unless something has none: that may be the one, and its own mistake is enough.
    fn unknown(self, what: &str, name: &Text, known: impl Iterator<Item = &'a Option<Text>> + Clone) {
        if known.clone().any(Option::is_none) {
            return;
        }
        let known = known.flatten().map(|known| known.get_ref().as_str());
        let help = did_you_mean(nearest(name.get_ref(), known));
        self.report.add(&name.span(), format!("unknown {what} `{}`", name.get_ref()), help);
    }

    /// Every subnet that uses a route table, with the index of its virtual network.
    fn users(self, table: usize) -> &'a [(usize, &'a Subnet)] {
        &self.index.users[table]
    }

    /// The networks that a network is directly peered with, by their indices.
    fn peers(self, network: usize) -> impl Iterator<Item = usize> {
        let peerings = self.network(network).peerings.iter();
        peerings.filter_map(move |peering| self.find_network(peering.get_ref().remote.as_ref()?.get_ref()))
    }

    /// Whether all peerings of a network are known: if not, what it is peered with cannot be judged.
    fn knows_peers(self, network: usize) -> bool {
        let peerings = &self.network(network).peerings;
        peerings.complete && peerings.len() == self.peers(network).count()
    }

    /// The network that the gateway is in. None if there is no gateway or it names no network that there is.
    fn gateway_network(self) -> Option<usize> {
        let gateway = self.document.gateway.as_ref()?.get_ref();
        self.find_network(gateway.virtual_network.as_ref()?.get_ref())
    }

    /// Whether the gateway is somewhere, but its network is unknown: what depends on it cannot be judged.
    fn gateway_is_lost(self) -> bool {
        self.document.gateway.is_some() && self.gateway_network().is_none()
    }
}

/// Indices by the names in lower case; of two with the same name, which is a mistake, the first.
fn by_name<'n>(names: impl Iterator<Item = &'n Option<Text>>) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for (index, name) in names.enumerate() {
        if let Some(name) = name {
            found.entry(name.get_ref().to_ascii_lowercase()).or_insert(index);
        }
    }
    found
}

/// A name for messages.
fn shown(name: &Option<Text>) -> &str {
    name.as_ref().map_or("(without a name)", |name| name.get_ref())
}

/// The value of a name that has to be there.
fn text(name: &Option<Text>) -> String {
    name.as_ref().map(|name| name.get_ref().clone()).unwrap_or_default()
}
