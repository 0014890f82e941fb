//! The kinds of paths that people tell apart: the one place that says which next hop is of which.

use serde::{Deserialize, Serialize};

use crate::snapshot::NextHopType;

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
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Endpoint => 0,
            Self::Tunnel => 1,
            Self::Internet => 2,
            Self::Inside => 3,
        }
    }
}
