//! The network of these tests, and what its hosts are called.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::node::{Node, Site};
use crate::support::{privileged, skipped};

/// The document that the tests vary.
const DOCUMENT: &str = include_str!("network.toml");

/// What tests need beside root, and an argument with which each program ends at once.
const TOOLS: [(&str, &str); 8] = [
    ("ping", "-V"),
    ("traceroute", "-V"),
    ("iperf3", "--version"),
    ("curl", "--version"),
    ("tcpdump", "--version"),
    ("tshark", "--version"),
    ("ethtool", "--version"),
    ("turnutils_natdiscovery", "-h"),
];

/// What hosts are called in one address family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    /// The option of `ping`, `traceroute` and `curl`.
    pub(crate) option: &'static str,
    pub(crate) service: &'static str,
    /// A host of the internet.
    pub(crate) web: &'static str,
    /// A host of the internet behind its router.
    pub(crate) far: &'static str,
    /// The NICs `vm1` (which `twin` has, too), `vm2`, `public` and `closed`.
    pub(crate) vm1: &'static str,
    pub(crate) vm2: &'static str,
    pub(crate) public: &'static str,
    pub(crate) closed: &'static str,
    /// The router of `vm1`.
    pub(crate) gateway: &'static str,
    /// What the internet calls `public`.
    pub(crate) instance: &'static str,
    /// What the internet calls what is behind the NAT gateway.
    pub(crate) egress: &'static str,
    /// What a service calls what `shared` translates.
    pub(crate) shared: &'static str,
    /// The router of the internet.
    pub(crate) edge: &'static str,
    /// The node's own name towards the internet.
    pub(crate) pool: &'static str,
}

/// IPv4
pub(crate) const V4: Family = Family {
    option: "-4",
    service: "20.60.1.10",
    web: "198.51.100.80",
    far: "198.51.100.90",
    vm1: "10.1.1.4",
    vm2: "10.1.1.5",
    public: "10.1.2.4",
    closed: "10.1.3.4",
    gateway: "10.1.1.1",
    instance: "203.0.113.77",
    egress: "203.0.113.50",
    shared: "100.64.9.1",
    edge: "203.0.113.129",
    pool: "203.0.113.200",
};

/// IPv6
pub(crate) const V6: Family = Family {
    option: "-6",
    service: "2603:1020:206:100::10",
    web: "2001:db8:80::80",
    far: "2001:db8:90::90",
    vm1: "fd00:1:0:1::4",
    vm2: "fd00:1:0:1::5",
    public: "fd00:1:0:2::4",
    closed: "fd00:1:0:3::4",
    gateway: "fd00:1:0:1::1",
    instance: "2001:db8:ffff::77",
    egress: "2001:db8:ffff::50",
    shared: "fd00:64:9::1",
    edge: "2001:db8:ffff::129",
    pool: "2001:db8:ffff::200",
};

/// Endpoint-independent mapping with endpoint-independent filtering: what hosts need to find each other.
pub(crate) const OPEN: &str = "mapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\"";

/// The IPv6 source of `vm1` under `identity6`: prefix, region 18, network tag 0x120000a1, subnet tag 1, 10.1.1.4.
pub(crate) const IDENTITY: &str = "fde4:8dba:1200:a100:12:100:a01:104";
/// That of `twin`.
pub(crate) const TWIN_IDENTITY: &str = "fde4:8dba:1200:a200:12:100:a01:104";

impl Family {
    /// An address with a port.
    pub(crate) fn socket(&self, address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), port)
    }

    /// A URL of an address.
    pub(crate) fn url(&self, address: &str) -> String {
        format!("http://{}/", self.socket(address, 80))
    }
}

/// Whether these tests can run here; says so if not, and fails then in CI.
pub(crate) fn ready() -> bool {
    if !privileged() {
        return false;
    }
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, argument)| Command::new(tool).arg(argument).output().is_err())
        .map(|(tool, _)| *tool)
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot test translation in CI without {missing:?}");
    skipped(&missing.join(", "));
    false
}

/// What a test has other than the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant<'a> {
    /// The source of the endpoint of `one/workload`.
    pub(crate) one: &'a str,
    /// The source of the endpoint of `two/workload`.
    pub(crate) two: &'a str,
    /// How the NAT gateway translates.
    pub(crate) translation: &'a str,
    /// Workers of the node; plain devices have one queue, for one.
    pub(crate) workers: u8,
}

/// What documents do that say nothing.
pub(crate) const DEFAULT: Variant<'_> = Variant { one: "\"private\"", two: "\"private\"", translation: "", workers: 1 };

/// The hosts and the document of a test.
pub(crate) fn network(hosts: &[&str], variant: Variant<'_>) -> Site {
    let site = Site::of(hosts, DOCUMENT);
    let site = site.replace("source = ONE", &format!("source = {}", variant.one));
    let site = site.replace("source = TWO", &format!("source = {}", variant.two));
    let site = site.replace("TRANSLATION", variant.translation);
    site.replace("WORKERS", &format!("workers = {}", variant.workers))
}

/// How many packets were dropped for a reason.
#[track_caller]
pub(crate) fn dropped(status: &Value, reason: &str) -> u64 {
    status["counters"]["dropped"][reason].as_u64().unwrap_or(0)
}

/// Three pings of a size, that are all answered.
#[track_caller]
pub(crate) fn ping(node: &Node, host: &str, to: &str, size: u16) {
    let size = size.to_string();
    let text = node.exec(host, &["ping", "-c", "3", "-i", "0.1", "-W", "3", "-s", &size, to]);
    assert!(text.contains(" 0% packet loss"), "{host} to {to}: {text}");
}

/// The addresses on the way, by probes of each kind that `traceroute` has; all have to agree.
#[track_caller]
pub(crate) fn traces(node: &Node, host: &str, family: Family, to: &str) -> Vec<String> {
    let mut found: Option<Vec<String>> = None;
    for kind in ["-U", "-T", "-I"] {
        let arguments = ["traceroute", family.option, kind, "-n", "-q", "1", "-w", "3", "-N", "1", "-m", "12", to];
        let trace = || {
            let text = node.exec(host, &arguments);
            let hops = text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned()));
            (hops.collect::<Vec<String>>(), text.clone())
        };
        let (mut hops, mut text) = trace();
        // Kernels make only so many errors at a time, for all hosts together: who was silent may be asked again.
        for _ in 0..2 {
            if hops.iter().any(|hop| hop == "*") {
                (hops, text) = trace();
            }
        }
        match &found {
            Some(before) => assert_eq!(*before, hops, "{kind}: {text}"),
            None => found = Some(hops),
        }
    }
    found.unwrap_or_default()
}
