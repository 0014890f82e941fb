//! A host behind a host: the packets that the node gave to a device go on over a wire, and the kernel on the way has
//! finished their segments and checksums by the end of it.

use crate::node::Node;
use crate::site::{forward, ip, reach, veth};

/// A router between a device of the node and a further host that takes over its addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    /// The host with the device, which becomes a router.
    pub(crate) near: &'a str,
    /// The device.
    pub(crate) device: &'a str,
    /// The host behind it.
    pub(crate) far: &'a str,
    /// The addresses of the further host, with the prefix lengths that the device has them with, if it does.
    pub(crate) addresses: [&'a str; 2],
    /// The router's own.
    pub(crate) router: [&'a str; 2],
    /// The wire's MTU.
    pub(crate) mtu: u16,
}

/// Puts `far` behind `near`. On the wire towards it nothing is left to devices: every packet arrives as it would on a
/// cable. With `offload`, `far` still sends super-packets and leaves checksums to its device, so that the node gets them
/// like that.
pub(crate) fn extend(node: &Node, link: Link<'_>, offload: bool) {
    let lab = &node.site.lab;
    let Link { near, device, far, addresses, router, mtu } = link;
    veth(lab, (near, "next0"), (far, "eth0"));
    forward(lab, near);
    let mtu = mtu.to_string();
    ip(lab, near, &["link", "set", "next0", "mtu", &mtu]);
    ip(lab, far, &["link", "set", "eth0", "mtu", &mtu]);
    let finished = ["tx", "off", "tso", "off", "gso", "off"];
    lab.exec(near, &[&["ethtool", "-K", "next0"], &finished[..]].concat());
    if !offload {
        lab.exec(far, &[&["ethtool", "-K", "eth0"], &finished[..]].concat());
    }
    for (address, router) in addresses.into_iter().zip(router) {
        let (bare, length) = address.split_once('/').expect("a prefix length");
        let six = bare.contains(':');
        let (whole, nodad): (&str, &[&str]) = if six { ("128", &["nodad"]) } else { ("32", &[]) };
        let of_router = format!("{router}/{whole}");
        for place in [device, "next0"] {
            // The device may have it already.
            let before = ip(lab, near, &["-o", "address", "show", "dev", place]);
            if !before.contains(&format!(" {of_router} ")) {
                ip(lab, near, &[&["address", "add", &of_router, "dev", place], nodad].concat());
            }
        }
        if ip(lab, near, &["-o", "address", "show", "dev", device]).contains(&format!(" {bare}/{length} ")) {
            ip(lab, near, &["address", "del", address, "dev", device]);
        }
        ip(lab, near, &["route", "replace", &format!("{bare}/{whole}"), "dev", "next0"]);
        ip(lab, far, &[&["address", "add", &format!("{bare}/{whole}"), "dev", "eth0"], nodad].concat());
        ip(lab, far, &["route", "add", &of_router, "dev", "eth0"]);
        ip(lab, far, &[if six { "-6" } else { "-4" }, "route", "add", "default", "via", router, "dev", "eth0"]);
    }
    reach(lab, far, &router);
}

/// `guest` behind `vm1`.
pub(crate) const GUEST: Link<'_> = Link {
    near: "vm1",
    device: "eth0",
    far: "guest",
    addresses: ["10.1.1.4/24", "fd00:1:0:1::4/64"],
    router: ["192.0.2.1", "2001:db8:192::1"],
    mtu: 1500,
};

/// `server` behind `storage`.
pub(crate) const SERVER: Link<'_> = Link {
    near: "storage",
    device: "eth0",
    far: "server",
    addresses: ["20.60.1.10/32", "2603:1020:206:100::10/128"],
    router: ["192.0.2.5", "2001:db8:192::5"],
    mtu: 1500,
};

/// `far` behind the internet's router.
pub(crate) const FAR: Link<'_> = Link {
    near: "internet",
    device: "edge0",
    far: "far",
    addresses: ["198.51.100.90/32", "2001:db8:90::90/128"],
    router: ["203.0.113.129", "2001:db8:ffff::129"],
    mtu: 1500,
};
