//! The reasons why bytes are no packet, with the names that counters and people see.

/// Why bytes are no packet that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ParseError {
    /// No bytes at all.
    Empty,
    /// Fewer bytes than the IP header needs, or than it promises.
    Truncated,
    /// The version is neither 4 nor 6.
    BadVersion,
    /// The IPv4 header length is below 20.
    BadHeaderLength,
    /// The IPv4 total length is less than the header.
    BadTotalLength,
    /// The IPv4 header checksum is wrong.
    BadIpv4Checksum,
    /// The IPv4 options do not fit their room.
    BadIpv4Options,
    /// More extension headers than anybody needs.
    Ipv6ExtensionTooDeep,
    /// An extension header ends behind the packet.
    TruncatedIpv6Extension,
    /// A hop-by-hop header that is not the first (RFC 8200 section 4.3).
    Ipv6HopByHopNotFirst,
    /// The packet ends inside the transport header.
    TruncatedTransport,
    /// A length in the transport header is impossible.
    BadTransportHeader,
    /// The sender chose the way: loose or strict source route (RFC 7126), routing header type 0 (RFC 5095), or any
    /// routing header that would still change the destination.
    SourceRouting,
    /// A first fragment that cuts through the headers, or a TCP fragment that would overwrite them (RFC 1858, RFC 3128,
    /// RFC 7112).
    TinyFragment,
    /// A fragment that ends beyond the largest packet, one before the last whose payload is no multiple of 8 bytes, or a
    /// fragment of a fragment.
    MalformedFragment,
}

impl ParseError {
    /// Every reason, in the order of their numbers (`reason as usize`).
    pub const ALL: [Self; 15] = [
        Self::Empty,
        Self::Truncated,
        Self::BadVersion,
        Self::BadHeaderLength,
        Self::BadTotalLength,
        Self::BadIpv4Checksum,
        Self::BadIpv4Options,
        Self::Ipv6ExtensionTooDeep,
        Self::TruncatedIpv6Extension,
        Self::Ipv6HopByHopNotFirst,
        Self::TruncatedTransport,
        Self::BadTransportHeader,
        Self::SourceRouting,
        Self::TinyFragment,
        Self::MalformedFragment,
    ];

    /// The name in counters and flow logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::BadVersion => "bad_version",
            Self::BadHeaderLength => "bad_header_length",
            Self::BadTotalLength => "bad_total_length",
            Self::BadIpv4Checksum => "bad_ipv4_checksum",
            Self::BadIpv4Options => "bad_ipv4_options",
            Self::Ipv6ExtensionTooDeep => "ipv6_extension_too_deep",
            Self::TruncatedIpv6Extension => "truncated_ipv6_extension",
            Self::Ipv6HopByHopNotFirst => "ipv6_hop_by_hop_not_first",
            Self::TruncatedTransport => "truncated_transport",
            Self::BadTransportHeader => "bad_transport_header",
            Self::SourceRouting => "source_routing",
            Self::TinyFragment => "tiny_fragment",
            Self::MalformedFragment => "malformed_fragment",
        }
    }

    /// The reason for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Empty => "the packet has no bytes",
            Self::Truncated => "the packet is shorter than its IP header says",
            Self::BadVersion => "the IP version is neither 4 nor 6",
            Self::BadHeaderLength => "the IPv4 header length is below 20 bytes",
            Self::BadTotalLength => "the IPv4 total length is less than the header length",
            Self::BadIpv4Checksum => "the IPv4 header checksum is wrong",
            Self::BadIpv4Options => "the IPv4 options are malformed",
            Self::Ipv6ExtensionTooDeep => "there are too many IPv6 extension headers",
            Self::TruncatedIpv6Extension => "an IPv6 extension header ends behind the packet",
            Self::Ipv6HopByHopNotFirst => "an IPv6 hop-by-hop header is not the first extension header",
            Self::TruncatedTransport => "the packet ends inside its transport header",
            Self::BadTransportHeader => "a length in the transport header is impossible",
            Self::SourceRouting => "the packet asks for source routing",
            Self::TinyFragment => "a fragment cuts through the transport header or would overwrite it",
            Self::MalformedFragment => "a fragment has an impossible place in its packet",
        }
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for ParseError {}
