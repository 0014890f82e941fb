//! What became of a packet. Names are append-only once released: metrics and flow logs carry them.

use crate::packet::parse::ParseError;
use crate::snapshot::{PortId, Unroutable};

/// What became of one received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It left through a port.
    Forwarded(PortId),
    /// It ended here and something was sent back, or it ended here with its flow.
    Answered(Answer),
    /// It was dropped.
    Dropped(DropReason),
    /// It belongs to a flow of another worker, which gives the verdict.
    HandOver(u16),
    /// A fragment that waits for the first of its packet; it gets another verdict when that comes, or in time.
    Held,
}

/// Defines an enum whose variants have a stable name and a text, from one list.
macro_rules! named {
    ($(#[$outer:meta])* $type:ident { $($(#[$inner:meta])* $variant:ident = $name:literal, $text:literal;)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $type {
            $($(#[$inner])* #[doc = $text] $variant,)+
        }

        impl $type {
            /// Every value in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name, as counters and logs carry it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

named! {
    /// Why a packet ended in an answer.
    Answer {
        TimeExceeded = "time_exceeded", "The hop limit ended here; an ICMP time exceeded went back.";
        PacketTooBig = "packet_too_big", "Larger than the next MTU and not to be fragmented; an ICMP error with the MTU went back.";
        Reset = "reset", "Its connection was closed because its path or source address changed; TCP resets went out.";
        FlowEnded = "flow_ended", "TCP of a translated connection that has ended or fell idle; a TCP reset went back.";
        PolicyDenied = "policy_denied", "The endpoint policies of the subnet do not list the resource; a reset or ICMP error went back.";
        PolicyUnidentified = "policy_unidentified", "Endpoint policies apply, and nothing tells which resource is wanted; a reset or ICMP error went back.";
        FirewallDenied = "firewall_denied", "The firewall of the resource does not admit the sender; a reset or ICMP error went back.";
        UndecidedInconsistent = "undecided_inconsistent", "Other bytes in the place of those that named the resource; TCP resets went out.";
        SecondRequest = "second_request", "More than the request that a plain HTTP connection was judged by; TCP resets went out, another connection may carry it.";
    }
}

named! {
    /// Why a packet was dropped.
    DropReason {
        HopLimitExceeded = "hop_limit_exceeded", "The hop limit ended here and no answer may be sent.";
        PacketTooBig = "packet_too_big", "Larger than the next MTU and neither fragmentation nor an answer is allowed.";
        SpoofedSource = "spoofed_source", "The source address is not one that this port may send from.";
        MulticastDestination = "multicast_destination", "Multicast and broadcast are not forwarded.";
        LinkLocal = "link_local", "Link-local and unspecified addresses are not forwarded.";
        PlatformAddress = "platform_address", "The destination is a platform address, which no route serves.";
        UnknownPort = "unknown_port", "The packet came from, or should leave through, a port that the snapshot does not have.";
        Unsolicited = "unsolicited", "Services and the backbone start no flows, and no flow leads back.";
        NoPublicAddress = "no_public_address", "From the internet to an address that nothing here has.";
        NoRoute = "no_route", "No route matches the destination.";
        NextHopNone = "next_hop_none", "The winning route's next hop is None.";
        AddressUnassigned = "address_unassigned", "Inside the virtual network or a peered one, and no NIC has the address.";
        NoGateway = "no_gateway", "The next hop is the virtual network gateway, and there is none to use.";
        ApplianceUnreachable = "appliance_unreachable", "No NIC of this or a directly peered network has the appliance's address.";
        ApplianceWithoutForwarding = "appliance_without_ip_forwarding", "The appliance's NIC has no ip_forwarding.";
        NoSuchResource = "no_such_resource", "The destination is a service's, and no resource has the address.";
        NoInternetEdge = "no_internet_edge", "The next hop is the internet, and there is no edge.";
        NoDevice = "no_device", "The next port has no device.";
        ForwardedTrafficRefused = "forwarded_traffic_refused", "The peering does not allow forwarded traffic, and the source is outside the sender's network.";
        Loop = "loop", "The next hop is the port that the packet came from.";
        NoOutboundAddress = "no_outbound_address", "The next hop needs a public source address, and there is none.";
        NoFreePort = "no_free_port", "Every translated port towards this destination is in use.";
        FragmentNotTranslatable = "fragment_not_translatable", "A fragment of SCTP, or of what only takes whole packets, needs its port translated.";
        FragmentWithoutFlow = "fragment_without_flow", "A later fragment of a packet whose flow has ended.";
        FlowTableFull = "flow_table_full", "The flow table is at its limit.";
        FlowConflict = "flow_conflict", "Another flow's replies have the same addresses and ports at the same port.";
        FlowMoved = "flow_moved", "A packet of a flow whose path changed, from the old path.";
        IcmpErrorWithoutFlow = "icmp_error_without_flow", "An ICMP error about a packet that no flow here sent.";
        IcmpErrorMalformed = "icmp_error_malformed", "An ICMP error that does not quote a packet.";
        EgressQueueFull = "egress_queue_full", "The device of the next port takes no more packets now.";
        EgressFailed = "egress_failed", "The device of the next port refused the packet.";
        NeighbourUnknown = "neighbour_unknown", "The link-layer address of the next hop is not known yet.";
        HandOverFull = "hand_over_full", "The ring to the worker that owns the flow is full.";
        Empty = "malformed_empty", "The packet has no bytes.";
        Truncated = "malformed_truncated", "The packet ends before its header does.";
        Version = "malformed_version", "Neither IPv4 nor IPv6.";
        HeaderLength = "malformed_header_length", "The IP header's length is impossible.";
        TotalLength = "malformed_total_length", "The IP header's total length does not fit the packet.";
        HeaderChecksum = "malformed_header_checksum", "The IPv4 header checksum is wrong.";
        Options = "malformed_options", "The IPv4 options do not fit their room.";
        ExtensionHeaders = "malformed_extension_headers", "Too many or broken IPv6 extension headers.";
        TransportHeader = "malformed_transport_header", "The transport header is truncated or impossible.";
        SourceRouting = "source_routing", "The sender asks for source routing.";
        NoSourceAddress = "no_source_address", "The endpoint's source policy has no address for this source.";
        ProtocolNotTranslatable = "protocol_not_translatable", "The translation takes only TCP and UDP.";
        NoMapping = "no_mapping", "To a translated address from outside, and nothing inside has that port or lets the sender in.";
        FlowLimitOfNic = "flow_limit_of_nic", "The NIC has as many flows as it may have, and none of the oldest transient ones is its own.";
        PortResting = "port_resting", "A reply to a flow that has ended; its translated port rests.";
        FragmentTiny = "fragment_tiny", "A fragment that cuts through the transport header (RFC 1858, RFC 3128).";
        FragmentOverlap = "fragment_overlap", "A fragment of a packet whose fragments overlap (RFC 5722).";
        FragmentDuplicate = "fragment_duplicate", "A fragment that has passed already.";
        FragmentMalformed = "fragment_malformed", "A fragment that ends beyond the largest packet, or one before the last that is no multiple of 8 bytes.";
        FragmentsFull = "fragments_full", "As many packets in fragments as may be followed at a time, or as many fragments waiting for the first.";
        FragmentTimeout = "fragment_timeout", "The first fragment, which has the ports, did not come in time.";
        TcpWithoutFlow = "tcp_without_flow", "TCP that begins no connection, to be translated, and no answer is allowed.";
        Untranslatable = "untranslatable", "The packet has no form in the other address family (RFC 7915).";
        NsgOutboundDenied = "nsg_outbound_denied", "A network security group does not let the sender send it.";
        NsgInboundDenied = "nsg_inbound_denied", "A network security group does not let it in to the receiver.";
        PolicyDenied = "policy_denied", "The endpoint policies of the subnet do not list the resource.";
        PolicyUnidentified = "policy_unidentified", "Endpoint policies apply, and the connection does not tell which resource it wants.";
        FirewallDenied = "firewall_denied", "The firewall of the resource does not admit the sender.";
        UndecidedTimeout = "undecided_timeout", "The client did not tell in time which resource it wants.";
        UndecidedFull = "undecided_full", "As many connections as may wait for the name of a resource, of the NIC or of all.";
        UndecidedOutOfOrder = "undecided_out_of_order", "Bytes beyond a gap, or before the server has answered, while the name of the resource is read; they come again.";
        UndecidedMalformed = "undecided_malformed", "Where the name of the resource decides: a fragment, data in a SYN, a wrong TCP checksum, Multipath TCP, what is of another connection on the same ports, and what follows the end of one.";
        UndecidedInconsistent = "undecided_inconsistent", "Other bytes in the place of those that named the resource.";
        IpOptions = "ip_options", "The IPv4 header has options, which routers of the internet drop, too (RFC 7126).";
        ForgedIdentity = "forged_identity", "The source address is one that only the node itself gives: an identity, a mapped prefix, a pool.";
        EndpointBypassed = "endpoint_bypassed", "Through the gateway, the internet edge or an appliance, from an address that the receiver reaches over a service endpoint: left of the old path, or forged.";
        SecondRequest = "second_request", "More than the request that a plain HTTP connection was judged by; another connection may carry it.";
        Draining = "draining", "It would begin a flow, and the node drains: it takes no new ones.";
    }
}

impl DropReason {
    /// The answer that stands for it where the sender is told.
    pub(super) const fn answer(self) -> Option<Answer> {
        match self {
            Self::PolicyDenied => Some(Answer::PolicyDenied),
            Self::PolicyUnidentified => Some(Answer::PolicyUnidentified),
            Self::FirewallDenied => Some(Answer::FirewallDenied),
            Self::UndecidedInconsistent => Some(Answer::UndecidedInconsistent),
            Self::SecondRequest => Some(Answer::SecondRequest),
            _ => None,
        }
    }
}

impl From<ParseError> for DropReason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Empty => Self::Empty,
            ParseError::Truncated => Self::Truncated,
            ParseError::BadVersion => Self::Version,
            ParseError::BadHeaderLength => Self::HeaderLength,
            ParseError::BadTotalLength => Self::TotalLength,
            ParseError::BadIpv4Checksum => Self::HeaderChecksum,
            ParseError::BadIpv4Options => Self::Options,
            ParseError::Ipv6ExtensionTooDeep
            | ParseError::TruncatedIpv6Extension
            | ParseError::Ipv6HopByHopNotFirst => Self::ExtensionHeaders,
            ParseError::TruncatedTransport | ParseError::BadTransportHeader => Self::TransportHeader,
            ParseError::SourceRouting => Self::SourceRouting,
            ParseError::TinyFragment => Self::FragmentTiny,
            ParseError::MalformedFragment => Self::FragmentMalformed,
        }
    }
}

impl From<Unroutable> for DropReason {
    fn from(reason: Unroutable) -> Self {
        match reason {
            Unroutable::NoRoute => Self::NoRoute,
            Unroutable::NextHopNone => Self::NextHopNone,
            Unroutable::AddressUnassigned => Self::AddressUnassigned,
            Unroutable::NoGateway => Self::NoGateway,
            Unroutable::ApplianceUnreachable => Self::ApplianceUnreachable,
            Unroutable::ApplianceWithoutForwarding => Self::ApplianceWithoutForwarding,
            Unroutable::NoSuchResource => Self::NoSuchResource,
            Unroutable::NoInternetEdge => Self::NoInternetEdge,
            Unroutable::NoDevice => Self::NoDevice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_in_counter_order() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.text().ends_with('.'));
        }
        for (index, answer) in Answer::ALL.iter().enumerate() {
            assert_eq!(*answer as usize, index);
        }
    }
}
