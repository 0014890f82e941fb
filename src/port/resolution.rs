//! The messages by which neighbours find each other's link-layer address: ARP (RFC 826) and neighbour discovery
//! (RFC 4861 section 7), read from and written as whole Ethernet frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOption, NdpOptionTypes, NeighborAdvertFlags,
    NeighborAdvertPacket, NeighborSolicitPacket,
};
use pnet::packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::util::MacAddr;

/// Bytes of an Ethernet header without tags.
pub(super) const ETHERNET: usize = 14;

const ARP: usize = 28;
const IPV6: usize = 40;
/// A solicitation or advertisement with one link-layer address option.
const DISCOVERY: usize = 32;
/// What RFC 4861 asks for, so that no router can have passed the message on.
const HOP_LIMIT: u8 = 255;

/// The largest message.
pub(super) const MESSAGE: usize = ETHERNET + IPV6 + DISCOVERY;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Who has `target`?
    Question {
        /// Whom it asks for.
        target: IpAddr,
        /// Who asks; unspecified when somebody probes whether an address is free.
        sender: IpAddr,
        /// Where the answer goes.
        mac: MacAddr,
    },
    /// `address` is at `mac`.
    Answer {
        /// Whose.
        address: IpAddr,
        /// The link-layer address.
        mac: MacAddr,
    },
}

/// A frame of a few bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    bytes: [u8; MESSAGE],
    length: usize,
}

impl Written {
    /// The frame, from its Ethernet header on.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Whether an IPv6 packet is a message of neighbour discovery between hosts, which [`read`] reads.
pub(super) fn is_discovery(packet: &[u8]) -> bool {
    packet.get(6) == Some(&IpNextHeaderProtocols::Icmpv6.0)
        && packet
            .get(IPV6)
            .is_some_and(|kind| [Icmpv6Types::NeighborSolicit.0, Icmpv6Types::NeighborAdvert.0].contains(kind))
}

/// Reads a frame; `None` if it is no message of this kind or breaks a rule that the RFCs say to drop it for.
pub(super) fn read(frame: &[u8]) -> Option<Message> {
    let ethernet = EthernetPacket::new(frame)?;
    match ethernet.get_ethertype() {
        EtherTypes::Arp => read_arp(ethernet.payload()),
        EtherTypes::Ipv6 => read_discovery(ethernet.get_source(), ethernet.payload()),
        _ => None,
    }
}

fn read_arp(message: &[u8]) -> Option<Message> {
    let arp = ArpPacket::new(message)?;
    let known = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && arp.get_hw_addr_len() == 6
        && arp.get_proto_addr_len() == 4;
    let mac = arp.get_sender_hw_addr();
    let sender = IpAddr::V4(arp.get_sender_proto_addr());
    if !known || !is_unicast(mac) {
        return None;
    }
    match arp.get_operation() {
        ArpOperations::Request => Some(Message::Question { target: arp.get_target_proto_addr().into(), sender, mac }),
        ArpOperations::Reply => Some(Message::Answer { address: sender, mac }),
        _ => None,
    }
}

fn read_discovery(from: MacAddr, packet: &[u8]) -> Option<Message> {
    let ip = Ipv6Packet::new(packet)?;
    let length = usize::from(ip.get_payload_length());
    let body = packet.get(IPV6..IPV6 + length)?;
    if ip.get_hop_limit() != HOP_LIMIT || ip.get_next_header() != IpNextHeaderProtocols::Icmpv6 {
        return None;
    }
    let header = Icmpv6Packet::new(body)?;
    if header.get_icmpv6_code().0 != 0
        || header.get_checksum() != icmpv6::checksum(&header, &ip.get_source(), &ip.get_destination())
    {
        return None;
    }
    match header.get_icmpv6_type() {
        Icmpv6Types::NeighborSolicit => {
            let solicit = NeighborSolicitPacket::new(body)?;
            let sender = ip.get_source();
            let mac = match option(body, NdpOptionTypes::SourceLLAddr.0) {
                Some(_) if sender.is_unspecified() => return None,
                Some(mac) => mac,
                // Somebody probes whether an address is free; the answer goes to all.
                None if sender.is_unspecified() => MacAddr(0x33, 0x33, 0, 0, 0, 1),
                // A solicitation to one host may leave it out.
                None => Some(from).filter(|mac| is_unicast(*mac))?,
            };
            let target = solicit.get_target_addr();
            (!target.is_multicast()).then_some(Message::Question { target: target.into(), sender: sender.into(), mac })
        }
        Icmpv6Types::NeighborAdvert => {
            let advert = NeighborAdvertPacket::new(body)?;
            let mac = option(body, NdpOptionTypes::TargetLLAddr.0)?;
            let address = advert.get_target_addr();
            (!address.is_multicast()).then_some(Message::Answer { address: address.into(), mac })
        }
        _ => None,
    }
}

/// Finds a link-layer address among the options of a solicitation or advertisement. Read by hand, since the library
/// multiplies an option's length in eight bits, which overflows.
fn option(message: &[u8], wanted: u8) -> Option<MacAddr> {
    let mut options = message.get(24..)?;
    while let [kind, length, ..] = *options {
        let bytes = usize::from(length) * 8;
        let body = options.get(2..bytes)?;
        if kind == wanted {
            let [a, b, c, d, e, f, ..] = *body else { return None };
            return Some(MacAddr(a, b, c, d, e, f)).filter(|mac| is_unicast(*mac));
        }
        options = options.get(bytes..)?;
    }
    None
}

fn is_unicast(mac: MacAddr) -> bool {
    mac.0 & 1 == 0 && mac != MacAddr::zero()
}

/// The link-layer address of a multicast address (RFC 1112 section 6.4, RFC 2464 section 7) or of the limited broadcast
/// address; `None` for others.
pub(super) fn group_mac(address: IpAddr) -> Option<MacAddr> {
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some(MacAddr::broadcast()),
        IpAddr::V4(address) if address.is_multicast() => {
            let [_, b, c, d] = address.octets();
            Some(MacAddr(1, 0, 0x5e, b & 0x7f, c, d))
        }
        IpAddr::V6(address) if address.is_multicast() => {
            let [.., a, b, c, d] = address.octets();
            Some(MacAddr(0x33, 0x33, a, b, c, d))
        }
        _ => None,
    }
}

/// Asks who has `target`, from an address and link-layer address of ours: everybody, or the one that had it. `None`
/// where the addresses are of two families.
pub(super) fn question(target: IpAddr, own: IpAddr, mac: MacAddr, believed: Option<MacAddr>) -> Option<Written> {
    match (target, own) {
        (IpAddr::V4(target), IpAddr::V4(own)) => {
            let to = believed.unwrap_or(MacAddr::broadcast());
            arp(ArpOperations::Request, (own, mac), (target, MacAddr::zero()), to)
        }
        (IpAddr::V6(target), IpAddr::V6(own)) => {
            let group = solicited_node(target);
            let (to, destination) = match believed {
                Some(believed) => (believed, target),
                None => (group_mac(group.into())?, group),
            };
            discovery((mac, own), (to, destination), |body| {
                let mut solicit = MutableNeighborSolicitPacket::new(body)?;
                solicit.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
                solicit.set_target_addr(target);
                solicit.set_options(&[link_layer_option(true, mac)]);
                Some(())
            })
        }
        _ => None,
    }
}

/// Answers a question for an address of ours.
pub(super) fn answer(own: IpAddr, mac: MacAddr, asked_by: IpAddr, to: MacAddr) -> Option<Written> {
    match (own, asked_by) {
        (IpAddr::V4(own), IpAddr::V4(asked_by)) => arp(ArpOperations::Reply, (own, mac), (asked_by, to), to),
        (IpAddr::V6(own), IpAddr::V6(asked_by)) => {
            let (flags, destination) = if asked_by.is_unspecified() {
                (NeighborAdvertFlags::Override, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
            } else {
                (NeighborAdvertFlags::Override | NeighborAdvertFlags::Solicited, asked_by)
            };
            discovery((mac, own), (to, destination), |body| {
                let mut advert = MutableNeighborAdvertPacket::new(body)?;
                advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
                // We forward: hosts must not take us off their list of routers.
                advert.set_flags(flags | NeighborAdvertFlags::Router);
                advert.set_target_addr(own);
                advert.set_options(&[link_layer_option(false, mac)]);
                Some(())
            })
        }
        _ => None,
    }
}

fn link_layer_option(source: bool, mac: MacAddr) -> NdpOption {
    let option_type = if source { NdpOptionTypes::SourceLLAddr } else { NdpOptionTypes::TargetLLAddr };
    NdpOption { option_type, length: 1, data: mac.octets().to_vec() }
}

/// The group that a solicitation for an address goes to (RFC 4291 section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0x00ff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

fn ethernet(bytes: &mut [u8], to: MacAddr, from: MacAddr, kind: EtherType) -> Option<()> {
    let mut ethernet = MutableEthernetPacket::new(bytes)?;
    ethernet.set_destination(to);
    ethernet.set_source(from);
    ethernet.set_ethertype(kind);
    Some(())
}

fn arp(
    operation: ArpOperation,
    sender: (Ipv4Addr, MacAddr),
    target: (Ipv4Addr, MacAddr),
    to: MacAddr,
) -> Option<Written> {
    let mut written = Written { bytes: [0; MESSAGE], length: ETHERNET + ARP };
    ethernet(&mut written.bytes, to, sender.1, EtherTypes::Arp)?;
    let mut arp = MutableArpPacket::new(written.bytes.get_mut(ETHERNET..ETHERNET + ARP)?)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(sender.1);
    arp.set_sender_proto_addr(sender.0);
    arp.set_target_hw_addr(target.1);
    arp.set_target_proto_addr(target.0);
    Some(written)
}

fn discovery(
    (mac, source): (MacAddr, Ipv6Addr),
    (to, destination): (MacAddr, Ipv6Addr),
    body: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<Written> {
    let mut written = Written { bytes: [0; MESSAGE], length: MESSAGE };
    ethernet(&mut written.bytes, to, mac, EtherTypes::Ipv6)?;
    let packet = written.bytes.get_mut(ETHERNET..)?;
    let mut ip = MutableIpv6Packet::new(packet)?;
    ip.set_version(6);
    ip.set_payload_length(DISCOVERY as u16);
    ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ip.set_hop_limit(HOP_LIMIT);
    ip.set_source(source);
    ip.set_destination(destination);
    let message = packet.get_mut(IPV6..)?;
    body(message)?;
    let checksum = icmpv6::checksum(&Icmpv6Packet::new(message)?, &source, &destination);
    message.get_mut(2..4)?.copy_from_slice(&checksum.to_be_bytes());
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const THEIRS: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (own, theirs) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (own, theirs) = (ip(own), ip(theirs));
            for believed in [None, Some(THEIRS)] {
                let written = question(theirs, own, OURS, believed).expect("question");
                let expected = Message::Question { target: theirs, sender: own, mac: OURS };
                assert_eq!(read(written.bytes()), Some(expected));
            }
            let written = answer(own, OURS, theirs, THEIRS).expect("answer");
            assert_eq!(read(written.bytes()), Some(Message::Answer { address: own, mac: OURS }));
            assert_eq!(written.bytes()[..6], THEIRS.octets());
        }
        assert!(question(ip("10.0.0.1"), ip("fd00::1"), OURS, None).is_none());
    }

    #[test]
    fn questions_to_all_go_to_the_right_group() {
        let arp = question(ip("10.0.0.2"), ip("10.0.0.1"), OURS, None).expect("question");
        assert_eq!(arp.bytes()[..6], [0xff; 6]);
        assert_eq!(arp.bytes().len(), 42);
        let solicit = question(ip("fd00::12:3456"), ip("fd00::1"), OURS, None).expect("question");
        assert_eq!(solicit.bytes()[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(solicit.bytes()[38..54], "ff02::1:ff12:3456".parse::<Ipv6Addr>().expect("group").octets());
        assert!(is_discovery(&solicit.bytes()[ETHERNET..]));
    }

    #[test]
    fn an_advertisement_answers_a_probe_to_all() {
        let written = answer(ip("fd00::1"), OURS, ip("::"), MacAddr(0x33, 0x33, 0, 0, 0, 1)).expect("answer");
        assert_eq!(written.bytes()[38..54], "ff02::1".parse::<Ipv6Addr>().expect("group").octets());
        assert_eq!(written.bytes()[58] & NeighborAdvertFlags::Solicited, 0);
    }

    #[test]
    fn messages_that_break_the_rules_are_dropped() {
        let good = question(ip("fd00::2"), ip("fd00::1"), OURS, None).expect("question");
        // Hop limit, code, checksum.
        for (at, value) in [(21, 254), (55, 1), (56, good.bytes[56] ^ 1)] {
            let mut bad = good.bytes;
            bad[at] = value;
            assert_eq!(read(&bad), None, "byte {at}");
        }
        for length in 0..MESSAGE {
            assert_eq!(read(&good.bytes[..length]), None, "cut to {length}");
        }
        let good = question(ip("10.0.0.2"), ip("10.0.0.1"), OURS, None).expect("question");
        for (at, value) in [(15, 6), (17, 1), (18, 8), (19, 16), (21, 3), (22, 1)] {
            let mut bad = good.bytes;
            bad[at] = value;
            assert_eq!(read(&bad[..42]), None, "byte {at}");
        }
    }

    #[test]
    fn long_options_do_no_harm() {
        let good = question(ip("fd00::2"), ip("fd00::1"), OURS, None).expect("question");
        let mut body = good.bytes()[ETHERNET + IPV6..].to_vec();
        for length in 0..=255 {
            body[25] = length;
            let found = option(&body, NdpOptionTypes::SourceLLAddr.0);
            assert_eq!(found, (length == 1).then_some(OURS));
        }
        body[25] = 1;
        body[26] |= 1;
        assert_eq!(option(&body, NdpOptionTypes::SourceLLAddr.0), None, "a multicast address is nobody's");
    }

    #[test]
    fn groups_have_their_link_layer_address() {
        assert_eq!(group_mac(ip("224.129.2.3")), Some(MacAddr(1, 0, 0x5e, 1, 2, 3)));
        assert_eq!(group_mac(ip("255.255.255.255")), Some(MacAddr::broadcast()));
        assert_eq!(group_mac(ip("ff02::1:2")), Some(MacAddr(0x33, 0x33, 0, 1, 0, 2)));
        assert_eq!(group_mac(ip("10.0.0.1")), None);
    }
}
