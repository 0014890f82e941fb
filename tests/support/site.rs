//! The hosts around a node: what an administrator would set up in each namespace.

#![allow(dead_code, reason = "every test binary has a copy and uses a part of it")]

use std::fs;

use crate::node::PATIENCE;
use crate::support::{Lab, run, wait_for};
use sidestep::port::namespace;

/// The document that the tests vary.
pub(crate) const DOCUMENT: &str = include_str!("site.toml");

/// What a host of one address family is called in these tests: source and destinations of the conversations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    /// The option of `ping`, `traceroute` and `curl`.
    pub(crate) option: &'static str,
    /// The service.
    pub(crate) service: &'static str,
    /// An ordinary web site.
    pub(crate) web: &'static str,
    /// The NICs of `spoke/workload`, `spoke/inspected` and `spoke/open`.
    pub(crate) vms: [&'static str; 3],
    /// What those see as their subnet's gateway.
    pub(crate) gateways: [&'static str; 3],
    /// The appliance.
    pub(crate) appliance: &'static str,
    /// What the appliance sees as its subnet's gateway.
    pub(crate) appliance_gateway: &'static str,
    /// The far end of the tunnel.
    pub(crate) onprem: &'static str,
    /// The public address of the on-premises site.
    pub(crate) onprem_public: &'static str,
    /// The router of the internet.
    pub(crate) internet: &'static str,
    /// The public address of default outbound access, which is the edge's in a trace.
    pub(crate) public: &'static str,
}

/// Both address families.
pub(crate) const FAMILIES: [Family; 2] = [
    Family {
        option: "-4",
        service: "20.60.1.10",
        web: "198.51.100.80",
        vms: ["10.1.1.4", "10.1.2.4", "10.1.3.4"],
        gateways: ["10.1.1.1", "10.1.2.1", "10.1.3.1"],
        appliance: "10.0.100.4",
        appliance_gateway: "10.0.100.1",
        onprem: "192.168.0.1",
        onprem_public: "203.0.113.10",
        internet: "203.0.113.9",
        public: "203.0.113.200",
    },
    Family {
        option: "-6",
        service: "2603:1020:206:100::10",
        web: "2001:db8:80::80",
        vms: ["fd00:1:0:1::4", "fd00:1:0:2::4", "fd00:1:0:3::4"],
        gateways: ["fd00:1:0:1::1", "fd00:1:0:2::1", "fd00:1:0:3::1"],
        appliance: "fd00:0:0:100::4",
        appliance_gateway: "fd00:0:0:100::1",
        onprem: "fd00:c0a8::1",
        onprem_public: "2001:db8:ffff::10",
        internet: "2001:db8:ffff::9",
        public: "2001:db8:ffff::200",
    },
];

impl Family {
    /// An address with a port.
    pub(crate) fn socket(&self, address: &str, port: u16) -> std::net::SocketAddr {
        std::net::SocketAddr::new(address.parse().expect("an address"), port)
    }

    /// A URL of an address.
    pub(crate) fn url(&self, address: &str) -> String {
        format!("http://{}/", self.socket(address, 80))
    }
}

/// Settings of every host: no filter by the way back, an address is there at once, every traceroute probe is answered.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// Settings of a host that forwards.
const FORWARDING: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// The on-premises site hides behind its public addresses whatever it sends to the internet.
const MASQUERADE: &str = "add table inet site
add chain inet site out { type nat hook postrouting priority srcnat; }
add rule inet site out oifname wan0 meta nfproto ipv4 snat ip to 203.0.113.10
add rule inet site out oifname wan0 meta nfproto ipv6 snat ip6 to 2001:db8:ffff::10
";

/// Makes the hosts and connects those that a node does not.
pub(crate) fn build(hosts: &[&str]) -> Lab {
    let lab = Lab::new(hosts);
    for host in hosts {
        set(&lab, host, &SETTINGS);
        if ["appliance", "onprem", "internet"].contains(host) {
            forward(&lab, host);
        }
    }
    if hosts.contains(&"internet") {
        for address in ["198.51.100.80/32", "2001:db8:80::80/128"] {
            ip(&lab, "internet", &["address", "add", address, "dev", "lo"]);
        }
    }
    if hosts.contains(&"onprem") && hosts.contains(&"internet") {
        veth(&lab, ("onprem", "wan0"), ("internet", "site0"));
        for (host, device, v4, v6) in [
            ("onprem", "wan0", "203.0.113.10/30", "2001:db8:ffff::10/120"),
            ("internet", "site0", "203.0.113.9/30", "2001:db8:ffff::9/120"),
        ] {
            ip(&lab, host, &["address", "add", v4, "dev", device]);
            ip(&lab, host, &["address", "add", v6, "dev", device, "nodad"]);
        }
        ip(&lab, "onprem", &["route", "add", "default", "via", "203.0.113.9"]);
        ip(&lab, "onprem", &["-6", "route", "add", "default", "via", "2001:db8:ffff::9"]);
        lab.exec("onprem", &["nft", MASQUERADE]);
        reach(&lab, "onprem", &["203.0.113.9", "2001:db8:ffff::9"]);
    }
    lab
}

/// A wire between two hosts, both ends up.
pub(crate) fn veth(lab: &Lab, one: (&str, &str), other: (&str, &str)) {
    let peer = lab.name(other.0);
    ip(lab, one.0, &["link", "add", one.1, "type", "veth", "peer", "name", other.1, "netns", &peer]);
    for (host, device) in [one, other] {
        ip(lab, host, &["link", "set", device, "up"]);
    }
}

/// Waits until a host reaches addresses: the kernel takes its time to see that both ends of a new wire are up.
pub(crate) fn reach(lab: &Lab, host: &str, addresses: &[&str]) {
    for address in addresses {
        wait_for(address, PATIENCE, || {
            let ping = lab.command(host, &["ping", "-c", "1", "-W", "1", address]).output().expect("run ping");
            ping.status.success().then_some(())
        });
    }
}

/// Runs `ip` for a host.
pub(crate) fn ip(lab: &Lab, host: &str, arguments: &[&str]) -> String {
    run("ip", &[&["-n", &lab.name(host)], arguments].concat())
}

/// Makes a host forward.
pub(crate) fn forward(lab: &Lab, host: &str) {
    set(lab, host, &FORWARDING);
}

/// Writes a host's settings.
fn set(lab: &Lab, host: &str, settings: &[(&str, &str)]) {
    namespace::run(Some(&lab.name(host)), || {
        for (name, value) in settings {
            fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    })
    .expect("a namespace");
}
