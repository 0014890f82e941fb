//! One pass over a packet's headers: the offsets and the key that every later stage trusts.
//!
//! Stricter than the RFCs ask of a host in what could make a policy decide about another packet than the receiver sees:
//! a wrong IPv4 header checksum, source routing, and headers that do not fit the length are refused with a named
//! reason. Transport checksums are not looked at; a forwarder keeps them as right or wrong as they came.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;
use super::field::{bytes_at, u16_at, u32_at};
pub use super::parse_error::ParseError;

/// IP protocol numbers that the packet path tells apart (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// IPv6 extension headers that are walked (RFC 8200 section 4). All others end the chain.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
}

/// Extension headers walked at most. RFC 8200 section 4.1 lists five that may occur, one of them twice.
const MAX_EXTENSIONS: usize = 8;

/// The largest IPv4 packet, and the largest payload of IPv6.
const MAX_LENGTH: usize = 65_535;

/// More fragments follow, in the last byte of [`Chain::field`].
const MORE: u16 = 1;

/// The fragment offset in [`Chain::field`].
const OFFSET: u16 = 0xfff8;

/// Bytes of transport header that every quoted packet has (RFC 792), enough for the ports.
const QUOTED_TRANSPORT: usize = 8;

/// Source and destination, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// An IPv4 packet.
    V4 {
        /// Source address.
        source: Ipv4Addr,
        /// Destination address.
        destination: Ipv4Addr,
    },
    /// An IPv6 packet.
    V6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address.
        destination: Ipv6Addr,
    },
}

impl Addresses {
    /// Source address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => IpAddr::V4(source),
            Self::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => IpAddr::V4(destination),
            Self::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }
}

/// What the transport header is, with the fields that decisions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// TCP. In a packet quoted by an ICMP error all but `sequence` is 0 where the quote ends before it.
    Tcp {
        /// The eight flags, CWR to FIN; [`Parsed::SYN`] and its siblings.
        flags: u8,
        /// Sequence number of the first payload byte, or of SYN.
        sequence: u32,
        /// Acknowledgment number; means something where ACK is set.
        acknowledgment: u32,
        /// Length of the header with its options, in bytes.
        header: u8,
        /// Window as written, not scaled.
        window: u16,
    },
    /// UDP.
    Udp,
    /// ICMP echo, either family; both ports of [`Parsed`] are the identifier.
    IcmpEcho {
        /// An echo reply, not a request.
        reply: bool,
    },
    /// An ICMP error that quotes a packet: unreachable, source quench, time exceeded, parameter problem; in ICMPv6
    /// every type below 128.
    IcmpError,
    /// Any other ICMP message, redirects included.
    IcmpOther,
    /// Any other protocol; UDP-Lite, SCTP and DCCP with ports.
    Other,
    /// A later fragment, whose transport header is in another packet; ports are 0. A first fragment has its real kind
    /// and ports, and only [`Parsed::fragment`] tells it.
    Fragment,
}

/// Whether the packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Whole; also an IPv6 packet whose fragment header says that it is the only piece (RFC 6946).
    None,
    /// The piece with the transport header.
    First,
    /// A piece from the middle or the end.
    Later,
}

/// What one pass over the headers found. Offsets are in bytes from the start of the slice that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Source and destination.
    pub addresses: Addresses,
    /// Transport protocol, after IPv6 extension headers. AH and ESP are protocols, not extension headers, here.
    pub protocol: u8,
    /// Offset of the IP header: 0, but for a packet quoted in an ICMP error.
    pub network: u16,
    /// Offset of the transport header; in a later fragment, of the payload.
    pub transport: u16,
    /// Length of the packet as its header says, in bytes from `network` on. What the slice has behind it does not
    /// belong to the packet, and the caller cuts it.
    pub total: u32,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Source port of TCP, UDP, UDP-Lite, SCTP, DCCP; the identifier of an ICMP echo; else 0.
    pub source_port: u16,
    /// Destination port; the identifier of an ICMP echo; else 0.
    pub destination_port: u16,
    /// The transport header.
    pub kind: TransportKind,
    /// Whether the packet is a fragment.
    pub fragment: Fragment,
    /// Identification of IPv4, or of the IPv6 fragment header; 0 where IPv6 has none.
    pub identification: u32,
    /// Where the payload of a fragment belongs in that of the whole packet, in bytes: a multiple of 8, up to 65,528.
    pub fragment_offset: u16,
    /// Other fragments follow this one.
    pub more_fragments: bool,
    /// The packet must not be fragmented on its way: DF is set, or it is IPv6.
    pub dont_fragment: bool,
    /// The IPv4 header has options.
    pub has_options: bool,
}

impl Parsed {
    /// TCP flag: no more data.
    pub const FIN: u8 = 0x01;
    /// TCP flag: synchronize.
    pub const SYN: u8 = 0x02;
    /// TCP flag: reset.
    pub const RST: u8 = 0x04;
    /// TCP flag: push.
    pub const PSH: u8 = 0x08;
    /// TCP flag: the acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// TCP flag: the urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// TCP flag: ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// TCP flag: congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// Source address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        self.addresses.source()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        self.addresses.destination()
    }

    /// Whether it is an IPv4 packet.
    #[inline]
    pub fn is_v4(&self) -> bool {
        matches!(self.addresses, Addresses::V4 { .. })
    }

    /// The TCP flags; 0 where it is not TCP.
    #[inline]
    pub fn tcp_flags(&self) -> u8 {
        match self.kind {
            TransportKind::Tcp { flags, .. } => flags,
            _ => 0,
        }
    }

    /// Offset of the payload behind the transport header where that is TCP or UDP, else the offset of the transport
    /// header itself.
    #[inline]
    pub fn payload(&self) -> usize {
        usize::from(self.transport)
            + match self.kind {
                TransportKind::Tcp { header, .. } => usize::from(header),
                TransportKind::Udp => 8,
                _ => 0,
            }
    }

    /// Bytes from [`Parsed::payload`] to the end of the packet; of a super-packet, those of all its segments.
    #[inline]
    pub fn payload_len(&self) -> usize {
        (usize::from(self.network) + self.total as usize).saturating_sub(self.payload())
    }
}

/// Parses a packet from its IP header on.
///
/// # Errors
/// The first thing that is wrong with it, from the front.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Parsed, ParseError> {
    parse_at::<false>(packet, 0)
}

/// Parses the packet quoted by an ICMP error, `network` bytes into the slice. A quote is cut after 8 bytes of transport
/// header or later, and routers have changed its header, so lengths and the header checksum are not held against it.
pub(super) fn parse_quoted(packet: &[u8], network: usize) -> Result<Parsed, ParseError> {
    parse_at::<true>(packet, network)
}

// These are inlined by force down to the transport header: the result is built where it stays, which halves the time of
// an IPv6 packet against handing it up in pieces (`benches/packet.rs`).
#[inline(always)]
fn parse_at<const QUOTED: bool>(slice: &[u8], network: usize) -> Result<Parsed, ParseError> {
    let packet = slice.get(network..).unwrap_or_default();
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4::<QUOTED>(packet, network),
        Some(6) => parse_v6::<QUOTED>(packet, network),
        Some(_) => Err(ParseError::BadVersion),
        None => Err(ParseError::Empty),
    }
}

#[inline(always)]
fn parse_v4<const QUOTED: bool>(packet: &[u8], network: usize) -> Result<Parsed, ParseError> {
    let fixed = packet.first_chunk::<20>().ok_or(ParseError::Truncated)?;
    let header_length = usize::from(fixed[0] & 0x0f) * 4;
    if header_length < 20 {
        return Err(ParseError::BadHeaderLength);
    }
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if total < header_length {
        return Err(ParseError::BadTotalLength);
    }
    let end = if QUOTED { total.min(packet.len()) } else { total };
    let packet = packet.get(..end).ok_or(ParseError::Truncated)?;
    let header = packet.get(..header_length).ok_or(ParseError::Truncated)?;
    let has_options = header_length > 20;
    if !QUOTED {
        let sum = if has_options { checksum::sum(header) } else { checksum::sum_header(fixed) };
        if sum != 0xffff {
            return Err(ParseError::BadIpv4Checksum);
        }
        if has_options {
            check_options(header.get(20..).unwrap_or_default())?;
        }
    }
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    let field = flags << 3 | (flags >> 13 & MORE);
    let fragment = piece(field);
    if !QUOTED && fragment != Fragment::None {
        check_piece(field, fixed[9], header_length, total - header_length)?;
    }
    let addresses = Addresses::V4 {
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
    };
    let identification = u32::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let chain = Chain { protocol: fixed[9], transport: header_length, fragment, identification, field };
    let transport = parse_transport::<QUOTED>(packet, chain, true)?;
    Ok(Parsed {
        addresses,
        protocol: fixed[9],
        network: offset(network)?,
        transport: offset(network + header_length)?,
        total: total as u32,
        hop_limit: fixed[8],
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        kind: transport.kind,
        fragment,
        identification,
        fragment_offset: field & OFFSET,
        more_fragments: field & MORE != 0,
        dont_fragment: flags & 0x4000 != 0,
        has_options,
    })
}

/// Walks the options (RFC 791 section 3.1): each has a type, and all but end and no-operation a length.
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), ParseError> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        options = match kind {
            END => break,
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(ParseError::SourceRouting),
            _ => {
                let length = rest.first().map_or(0, |&length| usize::from(length));
                if length < 2 {
                    return Err(ParseError::BadIpv4Options);
                }
                options.get(length..).ok_or(ParseError::BadIpv4Options)?
            }
        };
    }
    Ok(())
}

#[inline(always)]
fn parse_v6<const QUOTED: bool>(packet: &[u8], network: usize) -> Result<Parsed, ParseError> {
    let fixed = packet.first_chunk::<40>().ok_or(ParseError::Truncated)?;
    let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let end = if QUOTED { total.min(packet.len()) } else { total };
    let packet = packet.get(..end).ok_or(ParseError::Truncated)?;
    let addresses = Addresses::V6 {
        source: Ipv6Addr::from(bytes_at::<16>(fixed, 8).unwrap_or_default()),
        destination: Ipv6Addr::from(bytes_at::<16>(fixed, 24).unwrap_or_default()),
    };
    let chain = match fixed[6] {
        extension::HOP_BY_HOP | extension::ROUTING | extension::FRAGMENT | extension::DESTINATION_OPTIONS => {
            walk_extensions::<QUOTED>(packet, fixed[6])?
        }
        protocol => Chain { protocol, transport: 40, fragment: Fragment::None, identification: 0, field: 0 },
    };
    let transport = parse_transport::<QUOTED>(packet, chain, false)?;
    Ok(Parsed {
        addresses,
        protocol: chain.protocol,
        network: offset(network)?,
        transport: offset(network + chain.transport)?,
        total: total as u32,
        hop_limit: fixed[7],
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        kind: transport.kind,
        fragment: chain.fragment,
        identification: chain.identification,
        fragment_offset: chain.field & OFFSET,
        more_fragments: chain.field & MORE != 0,
        dont_fragment: true,
        has_options: false,
    })
}

/// Where the headers in front of the transport header end. `transport` is from the start of the IP header.
#[derive(Clone, Copy)]
struct Chain {
    protocol: u8,
    transport: usize,
    fragment: Fragment,
    identification: u32,
    /// Offset and more-fragments bit as the IPv6 fragment header has them: the offset counts in bytes where it stands.
    field: u16,
}

/// What kind of piece the field of a fragment header, see [`Chain::field`], makes of a packet.
#[inline(always)]
fn piece(field: u16) -> Fragment {
    match (field & OFFSET, field & MORE) {
        (0, 0) => Fragment::None,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Checks where a fragment stands in its whole packet. `length` is that of the fragment's payload, `ahead` of what
/// counts to the length of the whole packet in front of it.
#[cold]
fn check_piece(field: u16, protocol: u8, ahead: usize, length: usize) -> Result<(), ParseError> {
    let offset = usize::from(field & OFFSET);
    if ahead + offset + length > MAX_LENGTH || (field & MORE != 0 && !length.is_multiple_of(8)) {
        return Err(ParseError::MalformedFragment);
    }
    // It would overwrite the flags of the first fragment (RFC 1858 section 3.2, RFC 3128).
    if offset == 8 && protocol == protocol::TCP {
        return Err(ParseError::TinyFragment);
    }
    Ok(())
}

/// Walks the extension headers up to the transport header; of a later fragment, up to its fragment header.
#[cold]
fn walk_extensions<const QUOTED: bool>(packet: &[u8], first: u8) -> Result<Chain, ParseError> {
    const TYPE_0: u8 = 0;
    let mut chain = Chain { protocol: first, transport: 40, fragment: Fragment::None, identification: 0, field: 0 };
    let cut = |chain: &Chain| {
        // All headers are in the first fragment (RFC 7112).
        let first = !QUOTED && chain.fragment == Fragment::First;
        if first { ParseError::TinyFragment } else { ParseError::TruncatedIpv6Extension }
    };
    for depth in 0..=MAX_EXTENSIONS {
        let header = chain.protocol;
        let (extension::HOP_BY_HOP | extension::ROUTING | extension::FRAGMENT | extension::DESTINATION_OPTIONS) =
            header
        else {
            return Ok(chain);
        };
        if header == extension::HOP_BY_HOP && depth > 0 {
            return Err(ParseError::Ipv6HopByHopNotFirst);
        }
        let [next, length, third, fourth] = bytes_at::<4>(packet, chain.transport).ok_or_else(|| cut(&chain))?;
        let size = if header == extension::FRAGMENT { 8 } else { 8 + usize::from(length) * 8 };
        if packet.len() < chain.transport + size {
            return Err(cut(&chain));
        }
        if !QUOTED && header == extension::FRAGMENT && chain.fragment != Fragment::None {
            return Err(ParseError::MalformedFragment);
        }
        chain.protocol = next;
        chain.transport += size;
        match header {
            // Of a routing header these are the type and the segments left (RFC 8200 section 4.4).
            extension::ROUTING if !QUOTED && (third == TYPE_0 || fourth > 0) => return Err(ParseError::SourceRouting),
            extension::FRAGMENT => {
                chain.field = u16::from_be_bytes([third, fourth]) & (OFFSET | MORE);
                chain.identification = u32_at(packet, chain.transport - 4).unwrap_or_default();
                chain.fragment = piece(chain.field);
                if !QUOTED && chain.fragment != Fragment::None {
                    let ahead = chain.transport - size - 40;
                    check_piece(chain.field, next, ahead, packet.len() - chain.transport)?;
                }
                if chain.fragment == Fragment::Later {
                    return Ok(chain);
                }
            }
            _ => {}
        }
    }
    Err(ParseError::Ipv6ExtensionTooDeep)
}

/// What the transport header said.
struct Transport {
    kind: TransportKind,
    source_port: u16,
    destination_port: u16,
}

impl Transport {
    #[inline]
    fn without_ports(kind: TransportKind) -> Self {
        Self { kind, source_port: 0, destination_port: 0 }
    }
}

/// Parses the transport header of `packet`, which ends where the packet ends (or its quote).
#[inline(always)]
fn parse_transport<const QUOTED: bool>(packet: &[u8], chain: Chain, v4: bool) -> Result<Transport, ParseError> {
    if chain.fragment == Fragment::Later {
        return Ok(Transport::without_ports(TransportKind::Fragment));
    }
    let bytes = packet.get(chain.transport..).ok_or(ParseError::TruncatedTransport)?;
    let whole = !QUOTED && chain.fragment == Fragment::None;
    let transport = match chain.protocol {
        protocol::TCP => parse_tcp::<QUOTED>(bytes),
        protocol::UDP => parse_udp(bytes, whole),
        protocol::ICMP if v4 => parse_icmp_v4(bytes),
        protocol::ICMPV6 if !v4 => parse_icmp_v6(bytes),
        protocol::UDP_LITE | protocol::SCTP | protocol::DCCP => parse_other_ports::<QUOTED>(bytes, chain.protocol),
        _ => Ok(Transport::without_ports(TransportKind::Other)),
    };
    transport.map_err(|error| match error {
        ParseError::TruncatedTransport if !QUOTED && chain.fragment == Fragment::First => ParseError::TinyFragment,
        error => error,
    })
}

#[inline(always)]
fn parse_tcp<const QUOTED: bool>(bytes: &[u8]) -> Result<Transport, ParseError> {
    let Some(fixed) = bytes.first_chunk::<20>() else {
        return if QUOTED { parse_quoted_tcp(bytes) } else { Err(ParseError::TruncatedTransport) };
    };
    let header = (fixed[12] >> 4) * 4;
    if header < 20 {
        return Err(ParseError::BadTransportHeader);
    }
    if !QUOTED && bytes.len() < usize::from(header) {
        return Err(ParseError::TruncatedTransport);
    }
    Ok(Transport {
        source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
        destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
        kind: TransportKind::Tcp {
            flags: fixed[13],
            sequence: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            acknowledgment: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            header,
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
        },
    })
}

#[cold]
fn parse_quoted_tcp(bytes: &[u8]) -> Result<Transport, ParseError> {
    let (source_port, destination_port) = ports(bytes)?;
    let sequence = u32_at(bytes, 4).ok_or(ParseError::TruncatedTransport)?;
    let kind = TransportKind::Tcp { flags: 0, sequence, acknowledgment: 0, header: 0, window: 0 };
    Ok(Transport { kind, source_port, destination_port })
}

#[inline]
fn ports(bytes: &[u8]) -> Result<(u16, u16), ParseError> {
    let fixed = bytes.first_chunk::<QUOTED_TRANSPORT>().ok_or(ParseError::TruncatedTransport)?;
    Ok((u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]])))
}

#[inline(always)]
fn parse_udp(bytes: &[u8], whole: bool) -> Result<Transport, ParseError> {
    let (source_port, destination_port) = ports(bytes)?;
    let length = usize::from(u16_at(bytes, 4).unwrap_or_default());
    if length < 8 {
        return Err(ParseError::BadTransportHeader);
    }
    if whole && length > bytes.len() {
        return Err(ParseError::TruncatedTransport);
    }
    Ok(Transport { kind: TransportKind::Udp, source_port, destination_port })
}

#[inline]
fn parse_icmp_v4(bytes: &[u8]) -> Result<Transport, ParseError> {
    let fixed = bytes.first_chunk::<8>().ok_or(ParseError::TruncatedTransport)?;
    Ok(match fixed[0] {
        0 => echo(fixed, true),
        8 => echo(fixed, false),
        3 | 4 | 11 | 12 => Transport::without_ports(TransportKind::IcmpError),
        _ => Transport::without_ports(TransportKind::IcmpOther),
    })
}

#[inline]
fn parse_icmp_v6(bytes: &[u8]) -> Result<Transport, ParseError> {
    let fixed = bytes.first_chunk::<8>().ok_or(ParseError::TruncatedTransport)?;
    Ok(match fixed[0] {
        128 => echo(fixed, false),
        129 => echo(fixed, true),
        0..128 => Transport::without_ports(TransportKind::IcmpError),
        _ => Transport::without_ports(TransportKind::IcmpOther),
    })
}

#[inline]
fn echo(header: &[u8; 8], reply: bool) -> Transport {
    let identifier = u16::from_be_bytes([header[4], header[5]]);
    Transport { kind: TransportKind::IcmpEcho { reply }, source_port: identifier, destination_port: identifier }
}

/// Protocols that put their ports where TCP and UDP do.
#[cold]
fn parse_other_ports<const QUOTED: bool>(bytes: &[u8], protocol: u8) -> Result<Transport, ParseError> {
    let header = if protocol == protocol::UDP_LITE || QUOTED { QUOTED_TRANSPORT } else { 12 };
    if bytes.len() < header {
        return Err(ParseError::TruncatedTransport);
    }
    // A coverage that leaves out part of the header is illegal (RFC 3828 section 3.1).
    if protocol == protocol::UDP_LITE && matches!(u16_at(bytes, 4), Some(1..8)) {
        return Err(ParseError::BadTransportHeader);
    }
    let (source_port, destination_port) = ports(bytes)?;
    Ok(Transport { kind: TransportKind::Other, source_port, destination_port })
}

#[inline]
fn offset(value: usize) -> Result<u16, ParseError> {
    u16::try_from(value).map_err(|_| ParseError::TruncatedTransport)
}
