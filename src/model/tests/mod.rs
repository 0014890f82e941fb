//! The shipped documents, one case for each check, and documents that were damaged at random.

mod guards;
mod networks;
mod ports;
mod property;
mod reading;
mod routes;
mod security;
mod sources;

use std::path::Path;

use super::network::{EndpointSource, Flows, Identity, IoMode, Network, UserNextHop};
use super::{Mistake, Mistakes, TagNames, parse};

/// A catalogue for tests.
struct Tags;

const TAGS: [&str; 7] =
    ["Storage", "Storage.WestEurope", "Sql", "AzureKeyVault", "AzureCloud", "AzureMonitor", "ApiOnly"];

impl TagNames for Tags {
    fn contains(&self, name: &str) -> bool {
        TAGS.contains(&name)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        super::names::nearest(name, TAGS).map(str::to_owned)
    }

    fn usable_in_routes(&self, name: &str) -> bool {
        name != "ApiOnly"
    }

    fn usable_in_rules(&self, name: &str) -> bool {
        name != "ApiOnly"
    }

    fn has_regional(&self, _: &str, location: &str) -> bool {
        location.ends_with("europe")
    }
}

/// A good document, which every case damages in one place.
const BASE: &str = include_str!("base.toml");

/// Stands before every place of a mistake.
const MARK: char = '§';

/// Damages to [`BASE`] and the mistakes that they make.
struct Case {
    /// Texts that are in the document once, and what takes their places, with marks.
    damages: Vec<(&'static str, &'static str)>,
    /// For each mark a part of the message, and a part of the help; an empty one says that there is no help.
    expected: &'static [(&'static str, &'static str)],
}

fn case(from: &'static str, to: &'static str, expected: &'static [(&'static str, &'static str)]) -> Case {
    Case { damages: vec![(from, to)], expected }
}

impl Case {
    /// One more damage.
    fn also(mut self, from: &'static str, to: &'static str) -> Self {
        self.damages.push((from, to));
        self
    }
}

/// Runs cases and compares number, places and texts of the mistakes; shows all cases that differ.
fn check_cases(cases: &[Case]) {
    let compared = cases.iter().filter_map(|Case { damages, expected }| {
        let text = damages.iter().fold(BASE.to_owned(), |text, (from, to)| replace_one(&text, from, to));
        compare(&text, expected).err().map(|difference| format!("{damages:?}\n{difference}"))
    });
    let differences: Vec<String> = compared.collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

fn replace_one(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` must be in the document once");
    text.replace(from, to)
}

/// Checks a document with marks.
fn check_document(marked: &str, expected: &[(&str, &str)]) {
    compare(marked, expected).unwrap_or_else(|difference| panic!("{difference}\nin\n{marked}"));
}

/// Compares the mistakes of a document with the expected ones.
fn compare(marked: &str, expected: &[(&str, &str)]) -> Result<(), String> {
    let places = places(marked);
    assert_eq!(places.len(), expected.len(), "each expected mistake needs a mark");
    let found = match parse(&marked.replace(MARK, ""), Path::new("network.toml"), Some(&Tags)) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.mistakes,
    };
    let as_expected = |index: usize, mistake: &Mistake| {
        let (message, help) = expected[index];
        let helps = match &mistake.help {
            None => help.is_empty(),
            Some(found) => !help.is_empty() && found.contains(help),
        };
        (mistake.line, mistake.column) == places[index] && mistake.message.contains(message) && helps
    };
    if found.len() == expected.len() && found.iter().enumerate().all(|(index, mistake)| as_expected(index, mistake)) {
        return Ok(());
    }
    let found: Vec<String> = found.iter().map(|mistake| format!("  {mistake:?}")).collect();
    Err(format!("expected {expected:?}\nat {places:?}, found\n{}", found.join("\n")))
}

/// Line and column of every mark, as they are when the marks are gone.
fn places(marked: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (line, text) in marked.lines().enumerate() {
        let mut column = 1;
        for character in text.chars() {
            if character == MARK {
                places.push((line + 1, column));
            } else {
                column += 1;
            }
        }
    }
    places
}

/// Parses a document that has to be good.
fn good(text: &str) -> Network {
    parse(text, Path::new("network.toml"), Some(&Tags)).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

/// The base document with one text replaced.
fn base_with(from: &str, to: &str) -> String {
    replace_one(BASE, from, to)
}

fn load(name: &str) -> Result<Network, Mistakes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    parse(&text, &path, Some(&Tags))
}

#[test]
fn demo_passes_the_check() {
    let network = load("demo.toml").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(network.location, "westeurope");
    assert_eq!(network.io, IoMode::Offload);
    assert!(network.tags.as_ref().unwrap().ends_with("config/service-tags.json"));
    let workload = network.find_subnet("spoke/workload").unwrap();
    assert_eq!(network.nics[0].subnet, workload);
    let table = &network.route_tables[network.subnet(workload).route_table.unwrap()];
    assert_eq!(table.routes.len(), 2);
    assert_eq!(table.routes[0].next_hop, UserNextHop::VirtualNetworkGateway);
    assert!(network.subnet(workload).service_endpoints.is_empty());
    assert_eq!(network.virtual_networks[network.gateway.as_ref().unwrap().virtual_network].name, "hub");
}

/// The networks of the scenarios.
const SCENARIOS: [&str; 6] =
    ["peered-networks", "appliance-egress", "managed-subnet", "on-premises-nat", "same-addresses", "secured"];

/// The namespaces of every device and host of a network, each as often as it is named.
fn namespaces(network: &Network) -> Vec<String> {
    let nics = network.nics.iter().map(|nic| &nic.device);
    let services = network.services.iter().map(|service| &service.device);
    let gateway = network.gateway.iter().map(|gateway| &gateway.device);
    let internet = network.internet.iter().map(|internet| &internet.device);
    let platform = network.platform.iter().map(|platform| &platform.device);
    let devices = nics.chain(services).chain(gateway).chain(internet).chain(platform);
    let devices = devices.map(|device| device.as_ref().unwrap().netns.clone().unwrap());
    devices.chain(network.lab.iter().flat_map(|lab| lab.hosts.iter().map(|host| host.netns.clone()))).collect()
}

#[test]
fn every_namespace_of_demo_and_scenarios_can_be_told_from_others() {
    let demo = namespaces(&load("demo.toml").unwrap_or_else(|mistakes| panic!("{mistakes}")));
    assert_eq!(demo.len(), 6);
    let mut all = demo;
    for name in SCENARIOS {
        let mut found = namespaces(&load(&format!("{name}.toml")).unwrap_or_else(|mistakes| panic!("{mistakes}")));
        assert!(found.iter().all(|netns| !all.contains(netns)), "{name} and another may be there together: {found:?}");
        all.append(&mut found);
    }
    assert!(all.iter().all(|netns| netns.starts_with("sidestep-")), "{all:?}");
}

#[test]
fn example_passes_the_check() {
    let network = load("example.toml").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(network.virtual_networks.len(), 2);
    assert!(network.backbone.is_some() && network.lab.is_some() && network.control.is_some());
    assert_eq!((network.flows.limit, network.identity), (Flows::default().limit, Identity::default()));
    let sources: Vec<_> = network.endpoints().map(|endpoint| &endpoint.source).collect();
    assert!(sources.contains(&&EndpointSource::Identity6) && sources.contains(&&EndpointSource::Snat(0)));
    assert!(sources.iter().any(|source| matches!(source, EndpointSource::PrefixMap(pairs) if pairs.len() == 2)));
    assert_eq!(network.network_security_groups[0].security_rules.len(), 5);
    assert_eq!(network.nics[0].application_security_groups, [0]);
    let firewall = network.services[0].resources[0].firewall.as_ref().unwrap();
    assert_eq!((firewall.virtual_network_rules.len(), firewall.ip_rules.len()), (3, 2));
    assert_eq!((network.service_endpoint_policies[0].definitions.len(), network.services[1].resources.len()), (2, 2));
    assert!(network.platform.is_some());
    assert_eq!((network.nat_gateways.len(), network.nics[1].public_addresses.len()), (1, 1));
}

#[test]
fn base_document_is_good() {
    let network = good(BASE);
    assert_eq!(network.virtual_networks.len(), 3);
    check_document(BASE, &[]);
}
