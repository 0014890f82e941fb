//! Address ranges with a meaning of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(first: u16, second: u16, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), length))
}

/// `::ffff:0:0/96`: IPv4 addresses in the clothes of IPv6 (RFC 4291 section 2.5.5.2), never on a wire.
const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));

/// Ranges that no address space may touch: those of Azure's virtual network FAQ, and their like of IPv6.
pub(super) const REFUSED: [(IpNet, &str); 10] = [
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(168, 63, 129, 16, 32), "Azure's platform"),
    (v6(0xff00, 0, 8), "multicast"),
    (v6(0xfe80, 0, 10), "link-local"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)), "loopback"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)), "unspecified"),
    (MAPPED, "IPv4-mapped"),
];

/// Ranges that are not public, beside [`REFUSED`]: private use (RFC 1918, RFC 4193), shared (RFC 6598), this network
/// (RFC 1122), reserved (RFC 1112). The documentation ranges count as public: examples need some.
const NOT_PUBLIC: [(IpNet, &str); 7] = [
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(100, 64, 0, 0, 10), "shared between providers and customers"),
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v6(0xfc00, 0, 7), "private"),
];

/// Whether two prefixes have an address in common.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The refused range that a prefix touches.
pub(super) fn refused(prefix: &IpNet) -> Option<(IpNet, &'static str)> {
    REFUSED.into_iter().find(|(range, _)| overlap(range, prefix))
}

/// What an address is if it is not a public one.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    REFUSED.iter().chain(&NOT_PUBLIC).find(|(range, _)| range.contains(&address)).map(|(_, what)| *what)
}

/// What an address is if no host can have it.
pub(super) fn no_host(address: IpAddr) -> Option<&'static str> {
    let never = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0);
    if never {
        return Some("this network");
    }
    REFUSED.iter().find(|(range, _)| range.contains(&address)).map(|(_, what)| *what)
}

/// Whether Azure keeps an address of a subnet's prefix for itself: the first four, and the last one of IPv4.
pub(super) fn reserved(prefix: &IpNet, address: IpAddr) -> bool {
    match (prefix, address) {
        (IpNet::V4(prefix), IpAddr::V4(address)) => {
            address.to_bits() - prefix.network().to_bits() < 4 || address == prefix.broadcast()
        }
        (IpNet::V6(prefix), IpAddr::V6(address)) => address.to_bits() - prefix.network().to_bits() < 4,
        _ => false,
    }
}
