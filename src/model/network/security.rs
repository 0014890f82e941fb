//! The validated network: security groups, endpoint policies, firewalls of services.

use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

use super::SubnetRef;

/// `direction = …` of a security rule, seen from the NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the NIC gets.
    Inbound,
    /// What the NIC sends.
    Outbound,
}

/// `access = …` of a security rule, `default_action = …` of a firewall, `unidentified = …` of an endpoint policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `"Allow"`
    Allow,
    /// `"Deny"`
    Deny,
}

/// `[[application_security_group]]`: NICs under a name, which rules may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationSecurityGroup {
    /// Its name, unique among application security groups.
    pub name: String,
}

/// `[[network_security_group]]`. Its rules come before the default rules (Azure, "Network security groups").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSecurityGroup {
    /// Its name, unique among network security groups.
    pub name: String,
    /// `flush_connection`, default false: a rule that changes ends flows that it denies now.
    pub flush_connection: bool,
    /// Rules in the order of the document; priorities are unique for each direction.
    pub security_rules: Vec<SecurityRule>,
}

/// A rule of a network security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityRule {
    /// Its name, unique in its group.
    pub name: String,
    /// `priority`, 100 to 4,096; lower comes first.
    pub priority: u16,
    /// `direction`
    pub direction: Direction,
    /// `access`
    pub access: Access,
    /// `protocol`
    pub protocol: RuleProtocol,
    /// `source_address_prefix` or `source_address_prefixes`, or `source_application_security_groups`
    pub source: RuleAddresses,
    /// The same of the destination.
    pub destination: RuleAddresses,
    /// `source_port_range` or `source_port_ranges`; empty means all.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The same of the destination.
    pub destination_ports: Vec<RangeInclusive<u16>>,
}

/// `protocol = …` of a security rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleProtocol {
    /// `"*"`
    Any,
    /// `"Tcp"`
    Tcp,
    /// `"Udp"`
    Udp,
    /// `"Icmp"`: ICMP and ICMPv6.
    Icmp,
    /// `"Esp"`
    Esp,
    /// `"Ah"`
    Ah,
}

/// The addresses of one side of a security rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAddresses {
    /// `"*"`
    Any,
    /// Prefixes, and one service tag at most.
    Listed {
        /// The prefixes.
        prefixes: Vec<IpNet>,
        /// The tag.
        tag: Option<RuleTag>,
    },
    /// The NICs of application security groups, by their indices in [`super::Network::application_security_groups`].
    ApplicationSecurityGroups(Vec<usize>),
}

/// A service tag of a security rule. The computed ones depend on the network that the rule is used in (Azure, "Virtual
/// network service tags").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleTag {
    /// The network's address space, what it is connected with, and 168.63.129.16.
    VirtualNetwork,
    /// What is outside the network and public, Azure's public addresses included.
    Internet,
    /// The source of probes: 168.63.129.16.
    AzureLoadBalancer,
    /// The platform's DNS, which no other rule denies.
    AzurePlatformDns,
    /// The instance metadata service, which no other rule denies.
    AzurePlatformImds,
    /// A tag of the catalogue, as written.
    Catalogue(String),
}

/// `[[service_endpoint_policy]]`: the resources of Azure Storage that a subnet reaches over its endpoint (Azure, "Virtual
/// network service endpoint policies for Azure Storage").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpointPolicy {
    /// Its name, unique among policies.
    pub name: String,
    /// `unidentified`, default Deny: what becomes of a connection that does not tell which resource it wants.
    pub unidentified: Access,
    /// What it lists.
    pub definitions: Vec<PolicyDefinition>,
}

/// A definition of an endpoint policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDefinition {
    /// Its name, unique in its policy.
    pub name: String,
    /// `service_resources`
    pub service_resources: Vec<PolicyScope>,
}

/// One of `service_resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyScope {
    /// A subscription, a resource group or a resource: what the id of a resource has to be or to be below.
    Id(String),
    /// `/services/Azure`: the resources of every managed service.
    EveryAlias,
    /// `/services/Azure/Batch`: the resources that a managed service depends on.
    Alias(String),
}

impl PolicyScope {
    /// Whether it lists a resource with this id and this `service_alias`. Case does not count.
    pub fn lists(&self, id: Option<&str>, alias: Option<&str>) -> bool {
        match self {
            Self::Id(scope) => id.is_some_and(|id| {
                let (Some(start), rest) = (id.get(..scope.len()), id.get(scope.len()..).unwrap_or_default()) else {
                    return false;
                };
                start.eq_ignore_ascii_case(scope) && (rest.is_empty() || rest.starts_with('/'))
            }),
            Self::EveryAlias => alias.is_some(),
            Self::Alias(listed) => alias.is_some_and(|alias| alias.eq_ignore_ascii_case(listed)),
        }
    }
}

/// `firewall = { … }` of a service or of a resource: who may reach it (Azure, "Configure Azure Storage firewalls and
/// virtual networks").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// `public_network_access`, default Enabled: false keeps everybody out but those that the exceptions name.
    pub public_network_access: bool,
    /// `default_action`, default Allow: with Allow the rules mean nothing.
    pub default_action: Access,
    /// `virtual_network_rules`
    pub virtual_network_rules: Vec<VirtualNetworkRule>,
    /// `ip_rules`: public IPv4 prefixes and addresses.
    pub ip_rules: Vec<Ipv4Net>,
    /// `bypass` has AzureServices: NICs with `trusted_service` come in.
    pub bypass_azure_services: bool,
    /// `resource_access_rules`: resource ids; NICs with such a `resource_id` come in.
    pub resource_access_rules: Vec<String>,
    /// `denial`, default reset.
    pub denial: Denial,
    /// `answering_port`: the TCP port where the service answers whom its firewall denies.
    pub answering_port: Option<u16>,
}

/// A virtual network rule: it names a subnet, and admits the subnet that had the name when the rule was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetworkRule {
    /// `network/subnet`, as written.
    pub name: String,
    /// The subnet; none if the document has it no more: such a rule admits nobody (Azure: `NetworkSourceDeleted`).
    pub subnet: Option<SubnetRef>,
    /// `ignore_missing_endpoint`, default false: the rule may come before the endpoint.
    pub ignore_missing_endpoint: bool,
}

/// `denial = …` of a firewall: what the sender of a denied packet gets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Denial {
    /// `"reset"`: a TCP reset; ICMP communication administratively prohibited where it is no TCP.
    #[default]
    Reset,
    /// `"prohibited"`: ICMP communication administratively prohibited.
    Prohibited,
}
