//! The document as written: the shape of the language. Every value knows its place; names are not looked up yet.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Report;
use super::quantity::{Delay, Lifetime, Probability, Rate};
use super::read::{Fields, InterfaceAddress, List, OneOrMany, Read, wrong_type};

/// A name, a reference or another text with its place.
pub(super) type Text = Spanned<String>;

/// The whole document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) location: Option<Text>,
    pub(super) tags: Option<Text>,
    pub(super) io: Option<Text>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) poll: Option<Text>,
    pub(super) control: Option<Text>,
    pub(super) semantics: Option<Spanned<Semantics>>,
    pub(super) flows: Option<Spanned<Flows>>,
    pub(super) identity: Option<Spanned<Identity>>,
    pub(super) virtual_networks: List<VirtualNetwork>,
    pub(super) route_tables: List<RouteTable>,
    pub(super) nat_gateways: List<NatGateway>,
    pub(super) snat_pools: List<SnatPool>,
    pub(super) application_security_groups: List<ApplicationSecurityGroup>,
    pub(super) network_security_groups: List<NetworkSecurityGroup>,
    pub(super) service_endpoint_policies: List<ServiceEndpointPolicy>,
    pub(super) nics: List<Nic>,
    pub(super) gateway: Option<Spanned<Gateway>>,
    pub(super) internet: Option<Spanned<Internet>>,
    pub(super) backbone: Option<Spanned<Backbone>>,
    pub(super) platform: Option<Spanned<Platform>>,
    pub(super) services: List<Service>,
    pub(super) lab: Option<Spanned<Lab>>,
}

impl Document {
    /// Reads the document, reporting wrong types, missing and unknown keys.
    pub(super) fn read(table: &DeTable<'_>, report: &Report<'_>) -> Self {
        let mut fields = Fields::of_document(table, report);
        let document = Self {
            location: fields.required("location"),
            tags: fields.optional("tags"),
            io: fields.optional("io"),
            workers: fields.optional("workers"),
            poll: fields.optional("poll"),
            control: fields.optional("control"),
            semantics: fields.optional("semantics"),
            flows: fields.optional("flows"),
            identity: fields.optional("identity"),
            virtual_networks: fields.list("virtual_network"),
            route_tables: fields.list("route_table"),
            nat_gateways: fields.list("nat_gateway"),
            snat_pools: fields.list("snat_pool"),
            application_security_groups: fields.list("application_security_group"),
            network_security_groups: fields.list("network_security_group"),
            service_endpoint_policies: fields.list("service_endpoint_policy"),
            nics: fields.list("nic"),
            gateway: fields.optional("gateway"),
            internet: fields.optional("internet"),
            backbone: fields.optional("backbone"),
            platform: fields.optional("platform"),
            services: fields.list("service"),
            lab: fields.optional("lab"),
        };
        fields.done();
        document
    }
}

/// Implements [`Read`] for a table: its name in messages, then each field and how it is read from its key.
macro_rules! read_table {
    ($type:ident, $what:literal, |$fields:ident| { $($before:expr;)* } $($field:ident: $value:expr,)*) => {
        impl Read for $type {
            const EXPECTED: &'static str = "a table";

            fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
                let mut $fields = Fields::open(value, $what, report)?;
                $($before;)*
                let read = Self { $($field: $value,)* };
                $fields.done();
                Some(read)
            }
        }
    };
}

mod security;

pub(super) use security::{
    ApplicationSecurityGroup, DESTINATION, Firewall, NetworkSecurityGroup, RuleSide, SOURCE, SecurityRule,
    ServiceEndpointPolicy, SideKeys, VirtualNetworkRule,
};

/// `[semantics]`
#[derive(Debug)]
pub(super) struct Semantics {
    pub(super) endpoint_precedence: Option<Text>,
    pub(super) endpoint_protocols: Option<Spanned<OneOrMany<String>>>,
    pub(super) nat_protocols: Option<Spanned<OneOrMany<String>>>,
}

read_table!(Semantics, "[semantics]", |fields| {}
    endpoint_precedence: fields.optional("endpoint_precedence"),
    endpoint_protocols: fields.optional("endpoint_protocols"),
    nat_protocols: fields.optional("nat_protocols"),
);

/// `[flows]`
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) limit: Option<Spanned<i64>>,
    pub(super) limit_per_nic: Option<Spanned<i64>>,
    pub(super) lifetimes: Option<Spanned<Lifetimes>>,
}

read_table!(Flows, "[flows]", |fields| {}
    limit: fields.optional("limit"),
    limit_per_nic: fields.optional("limit_per_nic"),
    lifetimes: fields.optional("lifetimes"),
);

/// `[flows.lifetimes]` and `lifetimes` of a NAT gateway.
#[derive(Debug)]
pub(super) struct Lifetimes {
    pub(super) icmp: Option<Spanned<Lifetime>>,
    pub(super) udp: Option<Spanned<Lifetime>>,
    pub(super) tcp_opening: Option<Spanned<Lifetime>>,
    pub(super) tcp_established: Option<Spanned<Lifetime>>,
    pub(super) tcp_closing: Option<Spanned<Lifetime>>,
    pub(super) tcp_closed: Option<Spanned<Lifetime>>,
    pub(super) tcp_reset: Option<Spanned<Lifetime>>,
    pub(super) port_rest: Option<Spanned<Lifetime>>,
    pub(super) port_rest_half_open: Option<Spanned<Lifetime>>,
}

read_table!(Lifetimes, "`lifetimes`", |fields| {}
    icmp: fields.optional("icmp"),
    udp: fields.optional("udp"),
    tcp_opening: fields.optional("tcp_opening"),
    tcp_established: fields.optional("tcp_established"),
    tcp_closing: fields.optional("tcp_closing"),
    tcp_closed: fields.optional("tcp_closed"),
    tcp_reset: fields.optional("tcp_reset"),
    port_rest: fields.optional("port_rest"),
    port_rest_half_open: fields.optional("port_rest_half_open"),
);

/// `[identity]`
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) prefix: Option<Spanned<IpNet>>,
    pub(super) destination_prefix: Option<Spanned<IpNet>>,
}

read_table!(Identity, "[identity]", |fields| {}
    prefix: fields.optional("prefix"),
    destination_prefix: fields.optional("destination_prefix"),
);

/// `mapping = …` and `filtering = …` of whatever translates to a pool of addresses.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) mapping: Option<Text>,
    pub(super) filtering: Option<Text>,
}

impl Translation {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { mapping: fields.optional("mapping"), filtering: fields.optional("filtering") }
    }
}

/// `[[nat_gateway]]`
#[derive(Debug)]
pub(super) struct NatGateway {
    pub(super) name: Option<Text>,
    pub(super) public_addresses: List<IpAddr>,
    pub(super) idle_timeout: Option<Spanned<Lifetime>>,
    pub(super) lifetimes: Option<Spanned<Lifetimes>>,
    pub(super) translation: Translation,
}

read_table!(NatGateway, "a NAT gateway", |fields| {}
    name: fields.required("name"),
    public_addresses: fields.filled_list("public_addresses"),
    idle_timeout: fields.optional("idle_timeout"),
    lifetimes: fields.optional("lifetimes"),
    translation: Translation::read(&mut fields),
);

/// `[[snat_pool]]`
#[derive(Debug)]
pub(super) struct SnatPool {
    pub(super) name: Option<Text>,
    pub(super) addresses: List<IpAddr>,
    pub(super) ports: Option<Text>,
    pub(super) translation: Translation,
}

read_table!(SnatPool, "a SNAT pool", |fields| {}
    name: fields.required("name"),
    addresses: fields.filled_list("addresses"),
    ports: fields.optional("ports"),
    translation: Translation::read(&mut fields),
);

/// `[[virtual_network]]`
#[derive(Debug)]
pub(super) struct VirtualNetwork {
    pub(super) name: Option<Text>,
    pub(super) location: Option<Text>,
    pub(super) address_space: List<IpNet>,
    pub(super) traffic_tag: Option<Spanned<i64>>,
    pub(super) peerings: List<Peering>,
    pub(super) subnets: List<Subnet>,
}

read_table!(VirtualNetwork, "a virtual network", |fields| {}
    name: fields.required("name"),
    location: fields.optional("location"),
    address_space: fields.filled_list("address_space"),
    traffic_tag: fields.optional("traffic_tag"),
    peerings: fields.list("peerings"),
    subnets: fields.list("subnet"),
);

/// `peerings = [{ … }]`
#[derive(Debug)]
pub(super) struct Peering {
    pub(super) remote: Option<Text>,
    pub(super) allow_virtual_network_access: bool,
    pub(super) allow_forwarded_traffic: bool,
    pub(super) allow_gateway_transit: bool,
    pub(super) use_remote_gateways: Option<Spanned<bool>>,
}

impl Peering {
    /// The place of `use_remote_gateways = true`, if it says so.
    pub(super) fn uses_remote_gateways(&self) -> Option<Range<usize>> {
        self.use_remote_gateways.as_ref().filter(|flag| *flag.get_ref()).map(Spanned::span)
    }
}

read_table!(Peering, "a peering", |fields| {}
    remote: fields.required("remote"),
    allow_virtual_network_access: fields.optional("allow_virtual_network_access").is_none_or(Spanned::into_inner),
    allow_forwarded_traffic: fields.flag("allow_forwarded_traffic"),
    allow_gateway_transit: fields.flag("allow_gateway_transit"),
    use_remote_gateways: fields.optional("use_remote_gateways"),
);

/// `[[virtual_network.subnet]]`
#[derive(Debug)]
pub(super) struct Subnet {
    pub(super) name: Option<Text>,
    pub(super) address_prefixes: List<IpNet>,
    pub(super) route_table: Option<Text>,
    pub(super) nat_gateway: Option<Text>,
    pub(super) default_outbound_access: bool,
    pub(super) traffic_tag: Option<Spanned<i64>>,
    pub(super) network_security_group: Option<Text>,
    pub(super) service_endpoints: List<ServiceEndpoint>,
    pub(super) service_endpoint_policies: List<String>,
}

read_table!(Subnet, "a subnet", |fields| {}
    name: fields.required("name"),
    address_prefixes: fields.filled_list("address_prefixes"),
    route_table: fields.optional("route_table"),
    nat_gateway: fields.optional("nat_gateway"),
    default_outbound_access: fields.optional("default_outbound_access").is_none_or(Spanned::into_inner),
    traffic_tag: fields.optional("traffic_tag"),
    network_security_group: fields.optional("network_security_group"),
    service_endpoints: fields.list("service_endpoints"),
    service_endpoint_policies: fields.list("service_endpoint_policies"),
);

/// `service_endpoints = [{ … }]`
#[derive(Debug)]
pub(super) struct ServiceEndpoint {
    pub(super) service: Option<Text>,
    pub(super) locations: List<String>,
    pub(super) source: Option<Spanned<Source>>,
}

read_table!(ServiceEndpoint, "a service endpoint", |fields| {}
    service: fields.required("service"),
    locations: fields.list("locations"),
    source: fields.optional("source"),
);

/// `source = …`: one word, or a table with one key.
#[derive(Debug)]
pub(super) enum Source {
    /// `"private"`
    Private,
    /// `"identity6"`
    Identity6,
    /// `{ prefix_map = … }`
    PrefixMap(Spanned<OneOrMany<IpNet>>),
    /// `{ snat = … }`
    Snat(Text),
}

/// What may be written as `source`.
const SOURCES: &str = r#""private", { prefix_map = "PREFIX" }, "identity6" or { snat = "POOL" }"#;

impl Read for Source {
    const EXPECTED: &'static str = "a source";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let place = value.span();
        match value.get_ref() {
            DeValue::String(word) => match &**word {
                "private" => Some(Self::Private),
                "identity6" => Some(Self::Identity6),
                _ => {
                    let message = format!("unknown source `{word}`");
                    report.mistake_with_help(&place, message, format!("write {SOURCES}"));
                    None
                }
            },
            DeValue::Table(table) => {
                let is_one = ["prefix_map", "snat"].iter().filter(|key| table.contains_key(**key)).count() == 1;
                if !is_one {
                    let message = "a source is one of `prefix_map` and `snat`";
                    report.mistake_with_help(&place, message, format!("write {SOURCES}"));
                }
                let mut fields = Fields::open(value, "a source", report)?;
                let map = fields.optional("prefix_map").map(Self::PrefixMap);
                let snat = fields.optional("snat").map(Self::Snat);
                fields.done();
                map.or(snat).filter(|_| is_one)
            }
            _ => {
                wrong_type("a word or a table", value, report);
                None
            }
        }
    }
}

/// `[[route_table]]`
#[derive(Debug)]
pub(super) struct RouteTable {
    pub(super) name: Option<Text>,
    pub(super) disable_bgp_route_propagation: bool,
    pub(super) routes: List<Route>,
}

read_table!(RouteTable, "a route table", |fields| {}
    name: fields.required("name"),
    disable_bgp_route_propagation: fields.flag("disable_bgp_route_propagation"),
    routes: fields.list("routes"),
);

/// `routes = [{ … }]`
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Option<Text>,
    pub(super) address_prefix: Option<Text>,
    pub(super) next_hop_type: Option<Text>,
    pub(super) next_hop_ip_address: Option<Spanned<IpAddr>>,
    /// Whether the document gives an address, a wrong one included.
    pub(super) has_next_hop_ip_address: bool,
}

read_table!(Route, "a route", |fields| {}
    name: fields.required("name"),
    address_prefix: fields.required("address_prefix"),
    next_hop_type: fields.required("next_hop_type"),
    has_next_hop_ip_address: fields.has("next_hop_ip_address"),
    next_hop_ip_address: fields.optional("next_hop_ip_address"),
);

/// `[[nic]]`
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) name: Option<Text>,
    pub(super) subnet: Option<Text>,
    pub(super) private_addresses: List<IpAddr>,
    pub(super) public_addresses: List<IpAddr>,
    pub(super) ip_forwarding: bool,
    pub(super) network_security_group: Option<Text>,
    pub(super) application_security_groups: List<String>,
    pub(super) trusted_service: bool,
    pub(super) resource_id: Option<Text>,
    pub(super) device: Option<Spanned<Device>>,
}

read_table!(Nic, "a NIC", |fields| {}
    name: fields.required("name"),
    subnet: fields.required("subnet"),
    private_addresses: fields.filled_list("private_addresses"),
    public_addresses: fields.list("public_addresses"),
    ip_forwarding: fields.flag("ip_forwarding"),
    network_security_group: fields.optional("network_security_group"),
    application_security_groups: fields.list("application_security_groups"),
    trusted_service: fields.flag("trusted_service"),
    resource_id: fields.optional("resource_id"),
    device: fields.optional("device"),
);

/// `[gateway]`
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) virtual_network: Option<Text>,
    pub(super) learned_routes: List<IpNet>,
    pub(super) device: Option<Spanned<Device>>,
}

read_table!(Gateway, "[gateway]", |fields| {}
    virtual_network: fields.required("virtual_network"),
    learned_routes: fields.list("learned_routes"),
    device: fields.optional("device"),
);

/// `[internet]`
#[derive(Debug)]
pub(super) struct Internet {
    pub(super) public_addresses: List<IpAddr>,
    pub(super) translation: Translation,
    pub(super) device: Option<Spanned<Device>>,
}

read_table!(Internet, "[internet]", |fields| {}
    public_addresses: fields.list("public_addresses"),
    translation: Translation::read(&mut fields),
    device: fields.optional("device"),
);

/// `[backbone]`
#[derive(Debug)]
pub(super) struct Backbone {
    pub(super) device: Option<Spanned<Device>>,
}

read_table!(Backbone, "[backbone]", |fields| {}
    device: fields.optional("device"),
);

/// `[platform]`
#[derive(Debug)]
pub(super) struct Platform {
    pub(super) device: Option<Spanned<Device>>,
}

read_table!(Platform, "[platform]", |fields| {}
    device: fields.optional("device"),
);

/// `[[service]]`
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: Option<Text>,
    pub(super) service: Option<Text>,
    pub(super) location: Option<Text>,
    pub(super) id: Option<Text>,
    pub(super) service_alias: Option<Text>,
    pub(super) addresses: List<IpAddr>,
    pub(super) host_names: List<String>,
    pub(super) firewall: Option<Spanned<Firewall>>,
    pub(super) resources: List<Resource>,
    pub(super) device: Option<Spanned<Device>>,
}

impl Service {
    /// The host names of the service itself and of its resources.
    pub(super) fn all_host_names(&self) -> impl Iterator<Item = &Text> {
        let resources = self.resources.iter().map(Spanned::get_ref);
        self.host_names.iter().chain(resources.flat_map(|resource| resource.host_names.iter()))
    }
}

read_table!(Service, "a service", |fields| {}
    name: fields.required("name"),
    service: fields.required("service"),
    location: fields.optional("location"),
    id: fields.optional("id"),
    service_alias: fields.optional("service_alias"),
    addresses: fields.filled_list("addresses"),
    host_names: fields.list("host_names"),
    firewall: fields.optional("firewall"),
    resources: fields.list("resource"),
    device: fields.optional("device"),
);

/// `[[service.resource]]`
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) name: Option<Text>,
    pub(super) id: Option<Text>,
    pub(super) service_alias: Option<Text>,
    pub(super) host_names: List<String>,
    pub(super) firewall: Option<Spanned<Firewall>>,
}

read_table!(Resource, "a resource", |fields| {}
    name: fields.required("name"),
    id: fields.optional("id"),
    service_alias: fields.optional("service_alias"),
    host_names: fields.filled_list("host_names"),
    firewall: fields.optional("firewall"),
);

/// `device = { … }`
#[derive(Debug)]
pub(super) struct Device {
    pub(super) tun: Option<Text>,
    pub(super) ethernet: Option<Text>,
    pub(super) netns: Option<Text>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) link: Option<Spanned<Link>>,
    pub(super) pcap: Option<Text>,
    pub(super) addresses: List<InterfaceAddress>,
    pub(super) next_hop: Option<Spanned<OneOrMany<IpAddr>>>,
}

read_table!(Device, "a device", |fields| {}
    tun: fields.optional("tun"),
    ethernet: fields.optional("ethernet"),
    netns: fields.optional("netns"),
    mtu: fields.optional("mtu"),
    link: fields.optional("link"),
    pcap: fields.optional("pcap"),
    addresses: fields.list("addresses"),
    next_hop: fields.optional("next_hop"),
);

/// `link = { … }`
#[derive(Debug)]
pub(super) struct Link {
    pub(super) delay: Option<Spanned<Delay>>,
    pub(super) rate: Option<Spanned<Rate>>,
    pub(super) loss: Option<Spanned<Probability>>,
    pub(super) reorder: Option<Spanned<Probability>>,
    pub(super) seed: Option<Spanned<i64>>,
}

read_table!(Link, "a link", |fields| {}
    delay: fields.optional("delay"),
    rate: fields.optional("rate"),
    loss: fields.optional("loss"),
    reorder: fields.optional("reorder"),
    seed: fields.optional("seed"),
);

/// `[lab]`
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) hosts: List<LabHost>,
}

read_table!(Lab, "[lab]", |fields| {}
    hosts: fields.list("host"),
);

/// `[[lab.host]]`
#[derive(Debug)]
pub(super) struct LabHost {
    pub(super) netns: Option<Text>,
    pub(super) masquerade: Option<Spanned<OneOrMany<IpAddr>>>,
    pub(super) connect: Option<Spanned<Connect>>,
    pub(super) web: List<IpAddr>,
    pub(super) web_names: List<String>,
}

read_table!(LabHost, "a lab host", |fields| {}
    netns: fields.required("netns"),
    masquerade: fields.optional("masquerade"),
    connect: fields.optional("connect"),
    web: fields.list("web"),
    web_names: fields.list("web_names"),
);

/// `connect = { to = … }`
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) to: Option<Text>,
}

read_table!(Connect, "`connect`", |fields| {}
    to: fields.required("to"),
);
