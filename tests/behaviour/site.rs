//! A network for translation: two virtual networks with the same addresses, an internet edge and two services; and TCP
//! connections through it.

use crate::bench::Bench;
use crate::packets::Tcp;

/// A NAT gateway with two IPv4 addresses and one of IPv6.
pub(crate) const GATEWAY: &str = r#"
[[nat_gateway]]
name = "egress"
public_addresses = ["203.0.113.30", "203.0.113.31", "2001:db8:ffff::30"]
"#;

/// How a subnet has it.
pub(crate) const BY_GATEWAY: &str = r#"nat_gateway = "egress""#;

/// A host on the internet, in both families.
pub(crate) const WEB: &str = "198.51.100.80";
pub(crate) const WEB6: &str = "2001:db8:80::80";

/// What a test adds to the network.
#[derive(Clone, Copy, Default)]
pub(crate) struct Site<'a> {
    /// Tables of the whole node: `[flows]`, `[semantics]`.
    pub(crate) node: &'a str,
    /// Keys of the subnet `one/work`.
    pub(crate) one: &'a str,
    /// Keys of the subnet `two/work`.
    pub(crate) two: &'a str,
    /// Keys of the NIC `a1`.
    pub(crate) a1: &'a str,
    /// Keys of `[internet]`.
    pub(crate) edge: &'a str,
    /// NAT gateways and pools.
    pub(crate) pools: &'a str,
}

impl Site<'_> {
    pub(crate) fn document(self) -> String {
        let Self { node, one, two, a1, edge, pools } = self;
        format!(
            r#"
location = "westeurope"
tags = "service-tags.json"
{node}
[[virtual_network]]
name = "one"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
  [[virtual_network.subnet]]
  name = "work"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  {one}

[[virtual_network]]
name = "two"
address_space = ["10.1.0.0/16", "fd00:1::/48"]
  [[virtual_network.subnet]]
  name = "work"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  {two}
{pools}
[[nic]]
name = "a1"
subnet = "one/work"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = {{ tun = "t-a1" }}
{a1}
[[nic]]
name = "a2"
subnet = "one/work"
private_addresses = ["10.1.1.5", "fd00:1:0:1::5"]
ip_forwarding = true
device = {{ tun = "t-a2" }}

[[nic]]
name = "b1"
subnet = "two/work"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = {{ tun = "t-b1" }}

[internet]
public_addresses = ["203.0.113.200", "2001:db8:ffff::200"]
device = {{ tun = "t-edge" }}
{edge}
[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10", "2603:1020:206:100::10"]
device = {{ tun = "t-data" }}

[[service]]
name = "archive"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.11"]
device = {{ tun = "t-archive" }}
"#
        )
    }

    pub(crate) fn bench(self) -> Bench {
        Bench::with(&self.document())
    }
}

/// An end of a connection: the port of the node that it is behind, and its socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) port: &'a str,
    pub(crate) socket: (&'a str, u16),
}

/// The NIC `a1`, a port of its, and the host on the internet.
pub(crate) const A1: End<'_> = End { port: "a1", socket: ("10.1.1.4", 40_000) };
pub(crate) const SERVER: End<'_> = End { port: "internet", socket: (WEB, 443) };

/// A TCP connection from inside. Its first numbers are 1,000 and 9,000.
#[derive(Debug, Clone)]
pub(crate) struct Connection<'a> {
    pub(crate) inside: End<'a>,
    pub(crate) remote: End<'a>,
    /// The source that the remote end sees.
    pub(crate) presented: (String, u16),
}

impl<'a> Connection<'a> {
    /// Sends the SYN.
    #[track_caller]
    pub(crate) fn begin(bench: &mut Bench, inside: End<'a>, remote: End<'a>) -> Self {
        let syn = Tcp { from: inside.socket, to: remote.socket, ..Tcp::default() };
        let seen = bench.forward(inside.port, syn.bytes(), remote.port);
        Self { inside, remote, presented: (seen.source.to_string(), seen.source_port) }
    }

    /// Opens the connection: both sides have acknowledged.
    #[track_caller]
    pub(crate) fn open(bench: &mut Bench, inside: End<'a>, remote: End<'a>) -> Self {
        let connection = Self::begin(bench, inside, remote);
        bench.forward(remote.port, connection.back("SA", 9_000, 1_001), inside.port);
        bench.forward(inside.port, connection.out("A", 1_001, 9_001), remote.port);
        connection
    }

    /// Finishes it from both sides.
    #[track_caller]
    pub(crate) fn finish(&self, bench: &mut Bench) {
        bench.forward(self.inside.port, self.out("FA", 1_001, 9_001), self.remote.port);
        bench.forward(self.remote.port, self.back("FA", 9_001, 1_002), self.inside.port);
        bench.forward(self.inside.port, self.out("A", 1_002, 9_002), self.remote.port);
    }

    /// A packet from inside.
    pub(crate) fn out(&self, flags: &str, sequence: u32, acknowledgment: u32) -> Vec<u8> {
        let (from, to) = (self.inside.socket, self.remote.socket);
        Tcp { from, to, flags, sequence, acknowledgment, ..Tcp::default() }.bytes()
    }

    /// A packet from the remote end.
    pub(crate) fn back(&self, flags: &str, sequence: u32, acknowledgment: u32) -> Vec<u8> {
        let (from, to) = (self.remote.socket, (self.presented.0.as_str(), self.presented.1));
        Tcp { from, to, flags, sequence, acknowledgment, ..Tcp::default() }.bytes()
    }
}
