//! What a lab consists of, worked out from the document before anything is made: namespaces with their addresses, routes
//! and names, and the links between hosts. Pure: the same network gives the same lab.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::refusal::{Language, Refusal};
use super::serve::{PLAIN, TLS};
use crate::model::network::{Device, Interface, Lab, LabHost, Network, Service};
use crate::model::services::SQL;
use crate::snapshot::PLATFORM;

/// Where link addresses come from, in this order: TEST-NET-1 (RFC 5737), then the benchmarking range (RFC 2544).
const LINK_RANGES_V4: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24), Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15)];

/// The same for IPv6: the end of the documentation range (RFC 3849), then the benchmarking range (RFC 5180).
const LINK_RANGES_V6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 0), 112),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 112),
];

/// Prefix lengths of a link between two hosts.
const LINK_LENGTH_V4: u8 = 30;
const LINK_LENGTH_V6: u8 = 126;

/// A lab as it will be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The namespaces, in the order of their first mention in the document.
    pub(crate) namespaces: Vec<Namespace>,
    /// The links between hosts.
    pub(crate) links: Vec<Link>,
    /// Interfaces that the node will make outside of any namespace of the lab.
    pub(crate) own_interfaces: Vec<String>,
    /// The addresses that services see of callers who come over an endpoint.
    pub(crate) endpoint_sources: Vec<IpNet>,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Namespace {
    /// Its name.
    pub(crate) name: String,
    /// Whether it passes on packets that are not for itself.
    pub(crate) forwarding: bool,
    /// Addresses on its loopback interface: web sites, and the public addresses that it masquerades behind.
    pub(crate) addresses: Vec<IpAddr>,
    /// Routes over links.
    pub(crate) routes: Vec<Route>,
    /// Rules for nftables; empty where there are none.
    pub(crate) nftables: String,
    /// What its web server answers for: an address or host name, and the name of who answers there.
    pub(crate) answers: Vec<(String, String)>,
    /// Where it answers for services whom their firewalls deny.
    pub(crate) refusals: Vec<Refusal>,
    /// Content of its hosts file.
    pub(crate) hosts: String,
}

/// A route of a namespace over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// What it leads to.
    pub(crate) prefix: IpNet,
    /// The other end of the link.
    pub(crate) via: IpAddr,
    /// This end of the link.
    pub(crate) interface: String,
}

/// A veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its ends: the host that connects, and the one that it connects to.
    pub(crate) ends: [End; 2],
}

/// An end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// The namespace that it is in.
    pub(crate) netns: String,
    /// The interface's name there.
    pub(crate) interface: String,
    /// Its addresses with the prefix lengths of the link.
    pub(crate) addresses: Vec<IpNet>,
}

/// Why a document makes no lab.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No device is in a namespace and there are no hosts.
    #[error("the document describes no lab: no device has a `netns`, and there is no [[lab.host]]")]
    Empty,
    /// The links form a ring, so that no host is at the end of the default routes.
    #[error("lab host `{host}`: its `connect` leads back to itself")]
    Ring {
        /// A host of the ring.
        host: String,
    },
    /// Masquerading happens on the link towards the internet, and there is none.
    #[error("lab host `{host}`: `masquerade` needs a `connect`, the link that it hides what it forwards on")]
    MasqueradeNowhere {
        /// The host.
        host: String,
    },
    /// Whom a firewall denies would be answered where the service serves all others.
    #[error(
        "service `{service}`: `answering_port = {port}` is where the lab's hosts serve those who come in: use another port"
    )]
    AnsweringPort {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
    /// The document uses all of the ranges that link addresses come from.
    #[error("no addresses are left for the link from lab host `{host}`: the document uses all of the test ranges")]
    NoLinkAddresses {
        /// The host that connects.
        host: String,
    },
}

impl Layout {
    /// Works out the lab of a network.
    ///
    /// # Errors
    /// [`LayoutError`]
    pub(crate) fn of(network: &Network) -> Result<Self, LayoutError> {
        let none = Lab { hosts: Vec::new() };
        let hosts = &network.lab.as_ref().unwrap_or(&none).hosts;
        check_hosts(hosts)?;
        let spaces = network.virtual_networks.iter().flat_map(|network| &network.address_space);
        let mut layout = Self {
            namespaces: Vec::new(),
            links: Vec::new(),
            own_interfaces: Vec::new(),
            endpoint_sources: spaces.copied().chain(network.endpoint_prefixes()).collect(),
        };
        layout.add_devices(network)?;
        for host in hosts {
            layout.add_host(host);
        }
        if layout.namespaces.is_empty() {
            return Err(LayoutError::Empty);
        }
        layout.add_links(network, hosts)?;
        let names = hosts_file(network, hosts);
        for namespace in &mut layout.namespaces {
            namespace.hosts.clone_from(&names);
        }
        Ok(layout)
    }

    /// The namespace of a name, made if it is new.
    fn namespace(&mut self, name: &str) -> &mut Namespace {
        let found = self.namespaces.iter().position(|namespace| namespace.name == name);
        let index = found.unwrap_or_else(|| {
            self.namespaces.push(Namespace { name: name.to_owned(), ..Namespace::default() });
            self.namespaces.len() - 1
        });
        &mut self.namespaces[index]
    }

    fn add_devices(&mut self, network: &Network) -> Result<(), LayoutError> {
        for nic in &network.nics {
            if let Some(namespace) = self.add_device(nic.device.as_ref()) {
                namespace.forwarding |= nic.ip_forwarding;
            }
        }
        if let Some(namespace) = self.add_device(network.gateway.as_ref().and_then(|g| g.device.as_ref())) {
            namespace.forwarding = true;
        }
        if let Some(namespace) = self.add_device(network.internet.as_ref().and_then(|i| i.device.as_ref())) {
            namespace.forwarding = true;
        }
        self.add_device(network.backbone.as_ref().and_then(|b| b.device.as_ref()));
        if let Some(namespace) = self.add_device(network.platform.as_ref().and_then(|p| p.device.as_ref())) {
            namespace.answers.extend(PLATFORM.map(|address| (address.to_string(), "platform".to_owned())));
        }
        for service in &network.services {
            if let Some(namespace) = self.add_device(service.device.as_ref()) {
                let addresses = service.addresses.iter().map(|address| (address.to_string(), service.name.clone()));
                let shared = service.resources.iter().filter(|_| service.resources.len() > 1);
                let hosts = shared
                    .flat_map(|resource| resource.host_names.iter().map(|host| (host.clone(), resource.name.clone())));
                namespace.answers.extend(addresses.chain(hosts));
                namespace.refusals.extend(refusals(service)?);
            }
        }
        Ok(())
    }

    fn add_device(&mut self, device: Option<&Device>) -> Option<&mut Namespace> {
        let device = device?;
        match (&device.netns, &device.interface) {
            (Some(netns), _) => Some(self.namespace(netns)),
            (None, Interface::Tun { name, .. }) => {
                self.own_interfaces.push(name.clone());
                None
            }
            (None, Interface::Ethernet { .. }) => None,
        }
    }

    fn add_host(&mut self, host: &LabHost) {
        let name = host.web_names.first().unwrap_or(&host.netns).clone();
        let namespace = self.namespace(&host.netns);
        namespace.forwarding = true;
        // A site may serve on the address that it hides behind.
        let addresses: BTreeSet<_> = host.web.iter().chain(&host.masquerade).copied().collect();
        namespace.addresses.extend(addresses);
        namespace.answers.extend(host.web.iter().map(|address| (address.to_string(), name.clone())));
    }

    fn add_links(&mut self, network: &Network, hosts: &[LabHost]) -> Result<(), LayoutError> {
        let mut used = used_prefixes(network, hosts);
        let mut interfaces = used_interfaces(network);
        for host in hosts {
            let Some(to) = &host.connect else { continue };
            let prefixes =
                link_prefixes(&mut used).ok_or_else(|| LayoutError::NoLinkAddresses { host: host.netns.clone() })?;
            let mut ends = [&host.netns, to].map(|netns| End {
                netns: netns.clone(),
                interface: free_interface(netns, &mut interfaces),
                addresses: Vec::new(),
            });
            for prefix in prefixes {
                // An IPv6 prefix begins with the anycast address of its routers (RFC 4291 section 2.6.1).
                let mut addresses = prefix.hosts().skip(usize::from(prefix.addr().is_ipv6()));
                for end in &mut ends {
                    end.addresses.extend(addresses.next().and_then(|a| IpNet::new(a, prefix.prefix_len()).ok()));
                }
            }
            self.add_link_routes(network, hosts, host, &ends);
            self.links.push(Link { ends });
        }
        Ok(())
    }

    /// Default routes from the connecting host, routes back to what is behind it, and its masquerading.
    fn add_link_routes(&mut self, network: &Network, hosts: &[LabHost], host: &LabHost, ends: &[End; 2]) {
        let [near, far] = ends;
        let behind = prefixes_behind(network, hosts, host);
        for default in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            self.namespace(&near.netns).routes.extend(route(default, far, near));
        }
        self.namespace(&far.netns).routes.extend(behind.iter().filter_map(|prefix| route(*prefix, near, far)));
        let mut rules = String::new();
        for address in &host.masquerade {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            // Writing to a String cannot fail.
            let _ = write!(
                rules,
                "table {family} sidestep {{\n\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat\n\
                 \t\toifname \"{}\" {family} saddr != {address} snat to {address}\n\t}}\n}}\n",
                near.interface
            );
        }
        self.namespace(&near.netns).nftables.push_str(&rules);
    }
}

/// Where a service answers whom the firewalls of its resources deny.
fn refusals(service: &Service) -> Result<Vec<Refusal>, LayoutError> {
    let language = if service.service == SQL { Language::Sql } else { Language::Http };
    let firewalls = service.resources.iter().filter_map(|resource| resource.firewall.as_ref());
    let ports: BTreeSet<u16> = firewalls.filter_map(|firewall| firewall.answering_port).collect();
    if let Some(port) = ports.iter().find(|port| [PLAIN, TLS].contains(port)) {
        return Err(LayoutError::AnsweringPort { service: service.name.clone(), port: *port });
    }
    let at = |port: u16| service.addresses.iter().map(move |address| SocketAddr::new(*address, port));
    Ok(ports.into_iter().flat_map(at).map(|at| Refusal { at, language }).collect())
}

/// What the document's own check leaves open about hosts, because it concerns several of them.
fn check_hosts(hosts: &[LabHost]) -> Result<(), LayoutError> {
    for host in hosts {
        if !host.masquerade.is_empty() && host.connect.is_none() {
            return Err(LayoutError::MasqueradeNowhere { host: host.netns.clone() });
        }
        let mut at = Some(host);
        for _ in hosts {
            at = at.and_then(|at| find_host(hosts, at.connect.as_deref()?));
            if at.is_some_and(|at| at.netns == host.netns) {
                return Err(LayoutError::Ring { host: host.netns.clone() });
            }
        }
    }
    Ok(())
}

fn find_host<'a>(hosts: &'a [LabHost], netns: &str) -> Option<&'a LabHost> {
    hosts.iter().find(|host| host.netns == netns)
}

/// What is reached through a host: its public addresses, the networks that it does not hide, and what is behind the
/// hosts that connect to it. The hosts form no ring.
fn prefixes_behind(network: &Network, hosts: &[LabHost], host: &LabHost) -> BTreeSet<IpNet> {
    let mut prefixes: BTreeSet<IpNet> = host.web.iter().chain(&host.masquerade).map(|a| IpNet::from(*a)).collect();
    let device = |device: Option<&Device>| device.and_then(|d| d.netns.as_deref()) == Some(host.netns.as_str());
    let hidden = |prefix: &IpNet| host.masquerade.iter().any(|a| a.is_ipv4() == prefix.addr().is_ipv4());
    if let Some(gateway) = network.gateway.as_ref().filter(|gateway| device(gateway.device.as_ref())) {
        let spaces = network.virtual_networks.iter().flat_map(|network| &network.address_space);
        prefixes.extend(gateway.learned_routes.iter().chain(spaces).filter(|prefix| !hidden(prefix)));
    }
    if network.internet.as_ref().is_some_and(|internet| device(internet.device.as_ref())) {
        let services = network.services.iter().flat_map(|service| &service.addresses);
        prefixes.extend(services.copied().chain(network.public_addresses()).map(IpNet::from));
    }
    for other in hosts.iter().filter(|other| other.connect.as_deref() == Some(&host.netns)) {
        prefixes.extend(prefixes_behind(network, hosts, other));
    }
    // A default route belongs to the link towards the internet.
    prefixes.retain(|prefix| prefix.prefix_len() > 0);
    prefixes
}

/// A route to a prefix over a link, if the link has addresses of its family.
fn route(prefix: IpNet, to: &End, from: &End) -> Option<Route> {
    let via = to.addresses.iter().map(IpNet::addr).find(|via| via.is_ipv4() == prefix.addr().is_ipv4())?;
    Some(Route { prefix, via, interface: from.interface.clone() })
}

/// Every prefix that the document mentions, so that link addresses collide with none.
fn used_prefixes(network: &Network, hosts: &[LabHost]) -> Vec<IpNet> {
    let mut used: Vec<IpNet> = Vec::new();
    for virtual_network in &network.virtual_networks {
        used.extend(&virtual_network.address_space);
    }
    used.extend(network.gateway.iter().flat_map(|gateway| &gateway.learned_routes));
    let addresses = network.services.iter().flat_map(|service| &service.addresses);
    let addresses = addresses.chain(hosts.iter().flat_map(|host| host.web.iter().chain(&host.masquerade)));
    used.extend(addresses.copied().chain(network.public_addresses()).map(IpNet::from));
    used.extend(network.endpoint_prefixes());
    for device in devices(network) {
        match &device.interface {
            Interface::Tun { addresses, .. } => used.extend(addresses.iter().map(IpNet::trunc)),
            Interface::Ethernet { addresses, next_hop, .. } => {
                used.extend(addresses.iter().map(IpNet::trunc));
                used.extend(next_hop.iter().map(|address| IpNet::from(*address)));
            }
        }
    }
    // A default route mentions everything, and says nothing about where addresses are.
    used.retain(|prefix| prefix.prefix_len() > 0);
    used
}

/// Every interface that the node makes or expects in a namespace.
fn used_interfaces(network: &Network) -> BTreeSet<(String, String)> {
    devices(network)
        .filter_map(|device| {
            let (Interface::Tun { name, .. } | Interface::Ethernet { name, .. }) = &device.interface;
            Some((device.netns.clone()?, name.clone()))
        })
        .collect()
}

fn devices(network: &Network) -> impl Iterator<Item = &Device> {
    let nics = network.nics.iter().filter_map(|nic| nic.device.as_ref());
    let services = network.services.iter().filter_map(|service| service.device.as_ref());
    nics.chain(services)
        .chain(network.gateway.iter().filter_map(|gateway| gateway.device.as_ref()))
        .chain(network.internet.iter().filter_map(|internet| internet.device.as_ref()))
        .chain(network.backbone.iter().filter_map(|backbone| backbone.device.as_ref()))
        .chain(network.platform.iter().filter_map(|platform| platform.device.as_ref()))
}

/// The next free pair of link prefixes, marked as used.
fn link_prefixes(used: &mut Vec<IpNet>) -> Option<[IpNet; 2]> {
    let free = |prefix: &IpNet| !used.iter().any(|other| other.contains(prefix) || prefix.contains(other));
    let v4 = LINK_RANGES_V4.iter().filter_map(|range| range.subnets(LINK_LENGTH_V4).ok()).flatten();
    let v4 = v4.map(IpNet::V4).find(free)?;
    let v6 = LINK_RANGES_V6.iter().filter_map(|range| range.subnets(LINK_LENGTH_V6).ok()).flatten();
    let v6 = v6.map(IpNet::V6).find(free)?;
    used.extend([v4, v6]);
    Some([v4, v6])
}

/// The first name `link0`, `link1` … that no interface of the namespace has.
fn free_interface(netns: &str, used: &mut BTreeSet<(String, String)>) -> String {
    let mut number = 0_usize;
    loop {
        let name = format!("link{number}");
        if used.insert((netns.to_owned(), name.clone())) {
            return name;
        }
        number += 1;
    }
}

/// Names of services and web sites, pointing at their public addresses.
fn hosts_file(network: &Network, hosts: &[LabHost]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    let services =
        network.services.iter().map(|service| (&service.addresses, service.host_names().collect::<Vec<_>>()));
    let web = hosts.iter().map(|host| (&host.web, host.web_names.iter().collect()));
    for (addresses, names) in services.chain(web).filter(|(_, names)| !names.is_empty()) {
        for address in addresses {
            // Writing to a String cannot fail.
            let _ = write!(text, "{address}");
            for name in &names {
                let _ = write!(text, " {name}");
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests;
