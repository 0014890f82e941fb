//! The kinds of paths that people tell apart: the one place that says which next hop is of which.

use serde::{Deserialize, Serialize};

use crate::snapshot::{NextHopType, PortKind};

/// The four kinds of paths that people tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Over a service endpoint, straight to the service.
    Endpoint,
    /// Through the gateway or an appliance.
    Tunnel,
    /// By the internet edge.
    Internet,
    /// Inside the network and its peers, and to the platform.
    Inside,
}

impl PathKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Endpoint, Self::Tunnel, Self::Internet, Self::Inside];

    /// The kind of a next hop.
    pub const fn of(next_hop_type: NextHopType) -> Self {
        match next_hop_type {
            NextHopType::VirtualNetworkServiceEndpoint => Self::Endpoint,
            NextHopType::VirtualNetworkGateway | NextHopType::VirtualAppliance => Self::Tunnel,
            NextHopType::Internet => Self::Internet,
            NextHopType::VnetLocal | NextHopType::VNetPeering | NextHopType::Platform | NextHopType::None => {
                Self::Inside
            }
        }
    }

    /// The kind of a flow as the NIC sees it that it begins at, or else ends at: what enters by the gateway came through the
    /// tunnel, whatever the hop to the NIC is called. None for a flow between others, past the networks, such as the second
    /// half of what left through the tunnel.
    pub const fn of_flow(next_hop_type: NextHopType, ingress: PortKind, egress: PortKind) -> Option<Self> {
        match (ingress, egress) {
            (PortKind::Nic, _) => Some(Self::of(next_hop_type)),
            (PortKind::Gateway, PortKind::Nic) => Some(Self::Tunnel),
            (PortKind::Internet, PortKind::Nic) => Some(Self::Internet),
            _ => None,
        }
    }

    /// Its name in answers and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Tunnel => "tunnel",
            Self::Internet => "internet",
            Self::Inside => "inside",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its place in [`PathKind::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Endpoint => 0,
            Self::Tunnel => 1,
            Self::Internet => 2,
            Self::Inside => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_flow_is_that_of_its_nic() {
        for next_hop_type in NextHopType::ALL {
            let from_nic = PathKind::of_flow(next_hop_type, PortKind::Nic, PortKind::Service);
            assert_eq!(from_nic, Some(PathKind::of(next_hop_type)), "{}", next_hop_type.name());
        }
        // What begins elsewhere is of the NIC that it reaches, or of none.
        let local = NextHopType::VnetLocal;
        assert_eq!(PathKind::of_flow(local, PortKind::Gateway, PortKind::Nic), Some(PathKind::Tunnel));
        assert_eq!(PathKind::of_flow(local, PortKind::Internet, PortKind::Nic), Some(PathKind::Internet));
        assert_eq!(PathKind::of_flow(NextHopType::Internet, PortKind::Internet, PortKind::Service), None);
    }
}
