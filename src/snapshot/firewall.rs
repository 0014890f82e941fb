//! Firewalls of resources, compiled.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::{PortId, SubnetKey};

/// What the sender of a packet that a firewall denies gets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Denial {
    /// A TCP reset; where it is no TCP, ICMP communication administratively prohibited.
    #[default]
    Reset,
    /// ICMP communication administratively prohibited.
    Prohibited,
}

/// A virtual network rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// The subnet's name in lower case: `network/subnet`.
    pub name: String,
    /// The subnet that had the name when the rule was made. A rule keeps it as long as the rule is there: one whose subnet
    /// is gone admits nobody, and not the next subnet of that name either (Azure: `NetworkSourceDeleted`).
    pub identity: Option<SubnetKey>,
}

/// Who may reach a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// `public_network_access`: false keeps everybody out but [`Firewall::exceptions`].
    pub public_network_access: bool,
    /// `default_action = "Allow"`: the rules mean nothing then.
    pub default_allow: bool,
    /// Virtual network rules.
    pub rules: Vec<FirewallRule>,
    /// The identities that they admit, ascending.
    pub identities: Vec<SubnetKey>,
    /// IP rules: first and last addresses, ascending, none touching the next.
    pub addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// NICs that come in whatever the rules say, ascending: trusted services and resource instances.
    pub exceptions: Vec<PortId>,
    /// What a denied sender gets.
    pub denial: Denial,
    /// The TCP port where the resource answers whom it denies.
    pub answering_port: Option<u16>,
    /// The destination ports of those who are answered: plain HTTP, or SQL.
    pub answered_ports: Vec<RangeInclusive<u16>>,
}

impl Firewall {
    /// Whether a virtual network rule admits a subnet.
    pub fn admits_identity(&self, identity: SubnetKey) -> bool {
        self.identities.binary_search(&identity).is_ok()
    }

    /// Whether an IP rule admits an address.
    pub fn admits_address(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let behind = self.addresses.partition_point(|(first, _)| *first <= address);
        let found = behind.checked_sub(1).and_then(|index| self.addresses.get(index));
        found.is_some_and(|(_, last)| address <= *last)
    }

    /// Whether what enters through a port comes in whatever the rules say.
    pub fn excepts(&self, port: PortId) -> bool {
        self.exceptions.binary_search(&port).is_ok()
    }

    /// The port that a denied packet goes to, to be answered there.
    pub fn answering(&self, destination_port: u16) -> Option<u16> {
        self.answering_port.filter(|_| self.answered_ports.iter().any(|ports| ports.contains(&destination_port)))
    }
}
