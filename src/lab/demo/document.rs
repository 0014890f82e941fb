//! The demo's network document: the one that ships with the program, with the service moved to an address of the
//! catalogue that is to be used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::{Table, Value};

use super::DemoError;
use crate::model;
use crate::model::network::{Device, Interface, Link, Network, Service};
use crate::model::services::endpoint_service;
use crate::tags::{Catalogue, Tag};

/// The document and its catalogue as they ship.
const DOCUMENT: &str = include_str!("../../../config/demo.toml");
const CATALOGUE: &str = include_str!("../../../config/service-tags.json");

/// The file names that they get in the demo's folder; the document names its catalogue.
const DOCUMENT_FILE: &str = "demo.toml";
const CATALOGUE_FILE: &str = "service-tags.json";

/// What the demo measures: from this NIC, in this subnet, to this service.
const NIC: &str = "vm1";
const SUBNET: &str = "spoke/workload";
const SERVICE: &str = "contosodata";

/// How far into its prefix the service's address is, to stay clear of addresses that are special in small prefixes.
const OFFSET: u8 = 10;

/// The demo's network and what matters of it.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The network.
    pub(super) network: Network,
    /// Content of its document.
    pub(super) document: String,
    /// The NIC that traffic comes from, its subnet and its namespace.
    pub(super) nic: &'static str,
    pub(super) subnet: &'static str,
    pub(super) vm_netns: String,
    /// The NIC's IPv4 address.
    pub(super) private_address: IpAddr,
    /// The endpoint's service, and the resource with its namespace, address and host name.
    pub(super) service: String,
    pub(super) resource: &'static str,
    pub(super) service_netns: String,
    pub(super) service_address: IpAddr,
    pub(super) service_host: String,
    /// The ordinary web site.
    pub(super) web_netns: String,
    pub(super) web_address: IpAddr,
    pub(super) web_host: String,
    /// The public address of the on-premises site.
    pub(super) public_address: IpAddr,
    /// Namespace and name of the interfaces at which the service and the on-premises site receive.
    pub(super) service_interface: (String, String),
    pub(super) tunnel_interface: (String, String),
    /// What the tunnel is like.
    pub(super) tunnel: Option<Link>,
}

impl Subject {
    /// The network as it ships, or with the service inside the prefixes of another catalogue.
    ///
    /// # Errors
    /// A catalogue that has no prefix for the service.
    pub(super) fn new(catalogue: Option<&Catalogue>) -> Result<Self, DemoError> {
        let shipped = parse(DOCUMENT)?;
        let document = match catalogue {
            None => DOCUMENT.to_owned(),
            Some(catalogue) => {
                let service = find_service(&shipped)?;
                move_service(DOCUMENT, &addresses_in(catalogue, &shipped, service)?)?
            }
        };
        let network = parse(&document)?;
        let missing = |what: &str| DemoError::Document(format!("it has no {what}"));
        let service = find_service(&network)?;
        let nic = network.nics.iter().find(|nic| nic.name == NIC).ok_or_else(|| missing("NIC of its VM"))?;
        let hosts = network.lab.iter().flat_map(|lab| &lab.hosts);
        let site =
            hosts.clone().find_map(|host| Some((host.netns.clone(), v4(&host.web)?, host.web_names.first()?.clone())));
        let (web_netns, web_address, web_host) = site.ok_or_else(|| missing("web site"))?;
        let public = hosts.clone().find_map(|host| v4(&host.masquerade));
        let service_host = service.host_names().next().cloned().ok_or_else(|| missing("name of its service"))?;
        let netns = |device: &Option<model::network::Device>| device.as_ref().and_then(|device| device.netns.clone());
        let gateway = network.gateway.as_ref().and_then(|gateway| gateway.device.as_ref());
        let interface = |device: Option<&Device>| match device {
            Some(Device { interface: Interface::Tun { name, .. }, netns: Some(netns), .. }) => {
                Some((netns.clone(), name.clone()))
            }
            _ => None,
        };
        Ok(Self {
            nic: NIC,
            subnet: SUBNET,
            vm_netns: netns(&nic.device).ok_or_else(|| missing("namespace of its VM"))?,
            private_address: v4(&nic.private_addresses).ok_or_else(|| missing("private address"))?,
            service: service.service.clone(),
            resource: SERVICE,
            service_netns: netns(&service.device).ok_or_else(|| missing("namespace of its service"))?,
            service_address: v4(&service.addresses).ok_or_else(|| missing("service address"))?,
            service_host,
            web_netns,
            web_address,
            web_host,
            public_address: public.ok_or_else(|| missing("on-premises site"))?,
            service_interface: interface(service.device.as_ref()).ok_or_else(|| missing("interface of its service"))?,
            tunnel_interface: interface(gateway).ok_or_else(|| missing("interface of its gateway"))?,
            tunnel: gateway.and_then(|device| device.link),
            document,
            network,
        })
    }

    /// Writes document and catalogue into a folder and gives the document's path.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        std::fs::write(folder.join(CATALOGUE_FILE), CATALOGUE)?;
        let path = folder.join(DOCUMENT_FILE);
        std::fs::write(&path, &self.document)?;
        Ok(path)
    }
}

fn parse(document: &str) -> Result<Network, DemoError> {
    // The node looks names of tags up when it starts.
    model::parse(document, Path::new(DOCUMENT_FILE), None).map_err(|mistakes| DemoError::Document(mistakes.to_string()))
}

fn find_service(network: &Network) -> Result<&Service, DemoError> {
    let found = network.services.iter().find(|service| service.name == SERVICE);
    found.ok_or_else(|| DemoError::Document(format!("it has no service {SERVICE}")))
}

fn v4(addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses.iter().copied().find(IpAddr::is_ipv4)
}

/// One address for each family that the service's regional tag has a suitable prefix of.
fn addresses_in(catalogue: &Catalogue, network: &Network, service: &Service) -> Result<Vec<IpAddr>, DemoError> {
    let tags = endpoint_service(&service.service).map_or(&[][..], |service| service.tags);
    let tag = tags.iter().find_map(|tag| catalogue.regional_tag(tag, &service.location));
    let tag = tag
        .ok_or_else(|| DemoError::Catalogue(format!("it has no tag of {} in {}", service.service, service.location)))?;
    // The endpoint's routes are made of the global tag.
    let global = tags.iter().find_map(|tag| catalogue.get(tag));
    let addresses: Vec<IpAddr> =
        [true, false].into_iter().filter_map(|is_v4| suitable(tag, global, network, is_v4)).collect();
    if !addresses.iter().any(IpAddr::is_ipv4) {
        return Err(DemoError::Catalogue(format!("{} has no IPv4 prefix that the demo's service can be in", tag.name)));
    }
    Ok(addresses)
}

/// An address in the first prefix of a family that is large enough, covered by the global tag, and overlaps nothing of
/// the demo's networks.
fn suitable(tag: &Tag, global: Option<&Tag>, network: &Network, is_v4: bool) -> Option<IpAddr> {
    let spaces = || network.virtual_networks.iter().flat_map(|network| &network.address_space);
    tag.prefixes()
        .filter(|prefix| prefix.addr().is_ipv4() == is_v4)
        .filter(|prefix| prefix.max_prefix_len() - prefix.prefix_len() >= 4)
        .filter(|prefix| !spaces().any(|space| space.contains(prefix) || prefix.contains(space)))
        .map(|prefix| offset(prefix, OFFSET))
        .find(|address| global.is_some_and(|global| global.prefixes().any(|prefix| prefix.contains(address))))
}

fn offset(prefix: IpNet, by: u8) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => Ipv4Addr::from_bits(prefix.network().to_bits() | u32::from(by)).into(),
        IpNet::V6(prefix) => Ipv6Addr::from_bits(prefix.network().to_bits() | u128::from(by)).into(),
    }
}

/// The document with other addresses for the service.
fn move_service(document: &str, addresses: &[IpAddr]) -> Result<String, DemoError> {
    let broken = |error: &dyn std::fmt::Display| DemoError::Document(error.to_string());
    let mut table: Table = toml::from_str(document).map_err(|error| broken(&error))?;
    let services = table.get_mut("service").and_then(Value::as_array_mut).into_iter().flatten();
    for service in services.filter_map(Value::as_table_mut) {
        if service.get("name").and_then(Value::as_str) == Some(SERVICE) {
            let addresses = addresses.iter().map(|address| Value::String(address.to_string())).collect();
            service.insert("addresses".to_owned(), Value::Array(addresses));
        }
    }
    toml::to_string(&table).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(storage: &[&str], regional: &[&str]) -> Catalogue {
        let tag = |name: &str, region: &str, prefixes: &[&str]| {
            serde_json::json!({ "name": name, "id": name, "properties": {
                "changeNumber": 1, "region": region, "regionId": 18, "platform": "Azure",
                "systemService": "AzureStorage", "addressPrefixes": prefixes, "networkFeatures": ["VSE"] } })
        };
        let values = [tag("Storage", "", storage), tag("Storage.WestEurope", "westeurope", regional)];
        let document = serde_json::json!({ "changeNumber": 1, "cloud": "Public", "values": values }).to_string();
        Catalogue::parse(document.as_bytes(), "test.json").expect("catalogue")
    }

    #[test]
    fn the_shipped_document_has_what_the_demo_measures() {
        let subject = Subject::new(None).expect("subject");
        assert_eq!(subject.document, DOCUMENT);
        assert_eq!(subject.service, "Microsoft.Storage");
        assert_eq!(subject.private_address.to_string(), "10.1.1.4");
        assert_eq!(subject.public_address.to_string(), "203.0.113.10");
        assert_eq!(subject.web_host, "www.example.com");
        let catalogue = Catalogue::parse(CATALOGUE.as_bytes(), CATALOGUE_FILE).expect("catalogue");
        let tag = catalogue.regional_tag("Storage", "westeurope").expect("tag");
        assert!(tag.prefixes().any(|prefix| prefix.contains(&subject.service_address)));
    }

    #[test]
    fn the_service_moves_into_the_first_suitable_prefix_of_each_family() {
        let prefixes = ["20.1.0.0/31", "10.1.0.0/20", "20.2.0.0/28", "20.3.0.0/24", "2603:1020:207::/48"];
        let all = [&prefixes[..2], &prefixes[3..]].concat();
        let subject = Subject::new(Some(&catalogue(&all, &prefixes))).expect("subject");
        assert_eq!(subject.service_address.to_string(), "20.3.0.10", "20.2.0.0/28 is not in the global tag");
        let service = find_service(&subject.network).expect("service");
        let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["20.3.0.10", "2603:1020:207::a"]);
        assert_eq!(subject.service_host, "contosodata.blob.core.windows.net");
    }

    #[test]
    fn a_catalogue_without_ipv6_makes_a_service_without_ipv6() {
        let subject = Subject::new(Some(&catalogue(&["20.3.0.0/24"], &["20.3.0.0/24"]))).expect("subject");
        assert_eq!(find_service(&subject.network).expect("service").addresses.len(), 1);
    }

    #[test]
    fn a_catalogue_without_room_for_the_service_is_refused() {
        let error = Subject::new(Some(&catalogue(&["20.3.0.0/24"], &["20.3.0.0/30"]))).expect_err("refused");
        assert!(error.to_string().contains("Storage.WestEurope has no IPv4 prefix"), "{error}");
        let empty = serde_json::json!({ "changeNumber": 1, "cloud": "Public", "values": [{ "name": "Sql", "id": "Sql",
            "properties": { "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure", "systemService": "",
            "addressPrefixes": ["20.3.0.0/24"], "networkFeatures": null } }] });
        let empty = Catalogue::parse(empty.to_string().as_bytes(), "test.json").expect("catalogue");
        let error = Subject::new(Some(&empty)).expect_err("refused");
        assert!(error.to_string().contains("no tag of Microsoft.Storage in westeurope"), "{error}");
    }
}
