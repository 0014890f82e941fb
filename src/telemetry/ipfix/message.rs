//! Messages, sets and templates of IPFIX as they are written (RFC 7011 section 3).

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::flow_record::Socket;
use crate::path::verdict::DropReason;

/// The enterprise number of elements that count the other direction (RFC 5103 section 6.1).
const REVERSE: u32 = 29_305;

/// Length of what is as long as it says (RFC 7011 section 7).
const VARIABLE: u16 = 65_535;

/// Set ids of templates and options templates (RFC 7011 section 3.3.2).
const TEMPLATE_SET: u16 = 2;
const OPTIONS_SET: u16 = 3;

pub(super) const FLOWS: u16 = 256;
pub(super) const NAT_SESSIONS: u16 = 260;
pub(super) const POOL_EXHAUSTED: u16 = 264;
pub(super) const FLOWS_EXHAUSTED: u16 = 265;
pub(super) const DROPPED: u16 = 266;
pub(super) const NIC_EXHAUSTED: u16 = 267;
pub(super) const INTERFACES: u16 = 512;

/// An element of a template: number, length, whether it counts the other direction.
type Element = (u16, u16, bool);

/// What every flow record begins with, before the addresses.
const FLOW_HEAD: &[Element] = &[
    (152, 8, false), // flowStartMilliseconds
    (153, 8, false), // flowEndMilliseconds
    (4, 1, false),   // protocolIdentifier
    (10, 4, false),  // ingressInterface
    (14, 4, false),  // egressInterface
    (7, 2, false),   // sourceTransportPort
    (11, 2, false),  // destinationTransportPort
    (227, 2, false), // postNAPTSourceTransportPort
    (228, 2, false), // postNAPTDestinationTransportPort
    (2, 8, false),   // packetDeltaCount
    (1, 8, false),   // octetDeltaCount
    (2, 8, true),    // reverse packetDeltaCount
    (1, 8, true),    // reverse octetDeltaCount
    (136, 1, false), // flowEndReason
    (233, 1, false), // firewallEvent
    (89, 1, false),  // forwardingStatus
];

/// What it ends with: the path.
const FLOW_TAIL: &[Element] = &[(96, VARIABLE, false)]; // applicationName

const NAT_HEAD: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (230, 1, false), // natEvent
    (297, 1, false), // natType
    (4, 1, false),   // protocolIdentifier
    (7, 2, false),   // sourceTransportPort
    (11, 2, false),  // destinationTransportPort
    (227, 2, false), // postNAPTSourceTransportPort
    (228, 2, false), // postNAPTDestinationTransportPort
];

const POOL_EXHAUSTED_ELEMENTS: &[Element] = &[
    (323, 8, false),        // observationTimeMilliseconds
    (230, 1, false),        // natEvent
    (4, 1, false),          // protocolIdentifier
    (283, 4, false),        // natPoolId
    (284, VARIABLE, false), // natPoolName
];

const FLOWS_EXHAUSTED_ELEMENTS: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (230, 1, false), // natEvent
    (466, 4, false), // natQuotaExceededEvent
    (471, 4, false), // maxSessionEntries
];

const NIC_EXHAUSTED_HEAD: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (230, 1, false), // natEvent
    (466, 4, false), // natQuotaExceededEvent
    (473, 4, false), // maxEntriesPerUser
    (10, 4, false),  // ingressInterface
];

const DROPPED_ELEMENTS: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (10, 4, false),  // ingressInterface
    (133, 8, false), // droppedPacketDeltaCount
    (132, 8, false), // droppedOctetDeltaCount
    (89, 1, false),  // forwardingStatus
];

/// Source and destination addresses, as they enter and as they leave, by family.
fn addresses(v6: bool, post_v6: bool) -> [Element; 4] {
    let (source, destination) = if v6 { ((27, 16, false), (28, 16, false)) } else { ((8, 4, false), (12, 4, false)) };
    let (post_source, post_destination) =
        if post_v6 { ((281, 16, false), (282, 16, false)) } else { ((225, 4, false), (226, 4, false)) };
    [source, destination, post_source, post_destination]
}

/// The number of a template among four by the families.
fn family(v6: bool, post_v6: bool) -> u16 {
    u16::from(v6) << 1 | u16::from(post_v6)
}

/// A message of sets.
pub(super) fn message(sets: &[u8], sequence: u32) -> Vec<u8> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
    let mut message = Vec::with_capacity(sets.len() + 16);
    message.extend(10_u16.to_be_bytes());
    message.extend((sets.len() as u16 + 16).to_be_bytes());
    message.extend(time.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(0_u32.to_be_bytes());
    message.extend_from_slice(sets);
    message
}

/// A text of at most 254 bytes behind its length (RFC 7011 section 7), cut between letters.
pub(super) fn put_text(body: &mut Vec<u8>, text: &str) {
    let end = (0..=text.len().min(254)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    body.push(end as u8);
    body.extend_from_slice(&text.as_bytes()[..end]);
}

pub(super) fn families(sides: &[Socket; 4]) -> u16 {
    family(sides[0].address.is_ipv6(), sides[2].address.is_ipv6())
}

pub(super) fn put_addresses(body: &mut Vec<u8>, sides: &[Socket; 4]) {
    for side in sides {
        put_address(body, side.address);
    }
}

pub(super) fn put_address(body: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => body.extend(v4.octets()),
        IpAddr::V6(v6) => body.extend(v6.octets()),
    }
}

pub(super) fn put_set(message: &mut Vec<u8>, id: u16, body: &[u8]) {
    message.extend(id.to_be_bytes());
    message.extend((body.len() as u16 + 4).to_be_bytes());
    message.extend(body);
}

/// Every template, and the options template, as sets.
pub(super) fn templates(message: &mut Vec<u8>) {
    let mut body = Vec::new();
    let mut template = |id: u16, parts: &[&[Element]]| {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        body.extend(id.to_be_bytes());
        body.extend((count as u16).to_be_bytes());
        for (number, length, reverse) in parts.iter().copied().flatten().copied() {
            body.extend((if reverse { number | 0x8000 } else { number }).to_be_bytes());
            body.extend(length.to_be_bytes());
            if reverse {
                body.extend(REVERSE.to_be_bytes());
            }
        }
    };
    for (v6, post_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let addresses = addresses(v6, post_v6);
        template(FLOWS + family(v6, post_v6), &[FLOW_HEAD, &addresses, FLOW_TAIL]);
        template(NAT_SESSIONS + family(v6, post_v6), &[NAT_HEAD, &addresses]);
    }
    template(POOL_EXHAUSTED, &[POOL_EXHAUSTED_ELEMENTS]);
    template(FLOWS_EXHAUSTED, &[FLOWS_EXHAUSTED_ELEMENTS]);
    template(DROPPED, &[DROPPED_ELEMENTS]);
    template(NIC_EXHAUSTED, &[NIC_EXHAUSTED_HEAD, &[(8, 4, false)]]);
    template(NIC_EXHAUSTED + 1, &[NIC_EXHAUSTED_HEAD, &[(27, 16, false)]]);
    put_set(message, TEMPLATE_SET, &body);
    let mut options = Vec::new();
    // ingressInterface as scope, interfaceName.
    for number in [INTERFACES, 2, 1, 10, 4, 82, VARIABLE] {
        options.extend(number.to_be_bytes());
    }
    put_set(message, OPTIONS_SET, &options);
}

/// `forwardingStatus` of a packet that did not leave (RFC 7270 section 4.12): dropped, and why as far as it has a number.
pub(super) fn status(reason: Option<&str>) -> u8 {
    let is = |list: &[DropReason]| list.iter().any(|known| reason == Some(known.name()));
    if is(&[DropReason::NsgOutboundDenied, DropReason::NsgInboundDenied]) {
        129
    } else if is(&[DropReason::PolicyDenied, DropReason::PolicyUnidentified, DropReason::FirewallDenied]) {
        130
    } else if is(&[DropReason::SpoofedSource, DropReason::ForgedIdentity, DropReason::EndpointBypassed]) {
        140
    } else if is(&[DropReason::NoRoute, DropReason::NextHopNone, DropReason::NoGateway, DropReason::NoInternetEdge]) {
        131
    } else if is(&[DropReason::AddressUnassigned, DropReason::NoSuchResource, DropReason::NoDevice]) {
        132
    } else if is(&[DropReason::HopLimitExceeded]) || reason == Some("time_exceeded") {
        137
    } else if is(&[DropReason::PacketTooBig]) {
        133
    } else {
        128
    }
}
