//! Which of the matching routes wins. One function for the compiler, the effective-route table and the explanation of
//! a next hop (Azure, "Virtual network traffic routing", section "How Azure selects a route").

use std::cmp::Reverse;

use crate::model::network::EndpointPrecedence;

/// What a route is, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// System route of a range of the network's own address space.
    VirtualNetwork,
    /// System route of a range of a peered network.
    Peering,
    /// System route of a service endpoint.
    Endpoint,
    /// System default route to the internet.
    Internet,
    /// System route that drops a range reserved for private use.
    Reserved,
    /// Route learned through the virtual network gateway.
    Learned,
    /// User-defined route.
    User {
        /// Its next hop is `Internet`.
        internet: bool,
        /// How it ranks among user routes of the same prefix.
        prefix: PrefixRank,
    },
}

/// Rank of user routes that have a prefix in common; the later variant wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrefixRank {
    /// The tag `AzureCloud`.
    AzureCloud,
    /// A tag such as `AzureCloud.westeurope`.
    RegionalAzureCloud,
    /// A global tag such as `Storage`.
    GlobalTag,
    /// A regional tag such as `Storage.WestEurope`.
    RegionalTag,
    /// A prefix that the user wrote.
    Explicit,
}

impl Kind {
    /// User over BGP over system, at the same prefix.
    fn source_rank(self) -> u8 {
        match self {
            Self::User { .. } => 2,
            Self::Learned => 1,
            _ => 0,
        }
    }

    /// Rank within a source, at the same prefix. Azure says nothing about two system routes of one prefix; a route to
    /// somewhere comes before the default and before dropping.
    fn rank_in_source(self) -> u8 {
        match self {
            Self::User { prefix, .. } => prefix as u8,
            Self::VirtualNetwork => 4,
            Self::Peering => 3,
            Self::Endpoint => 2,
            Self::Internet => 1,
            Self::Reserved | Self::Learned => 0,
        }
    }
}

/// A route whose prefix contains the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Index of the route in its table; of two alike the first wins.
    pub(crate) route: u32,
    /// Length of its longest prefix that contains the destination, or any number that orders the candidates alike.
    pub(crate) length: u8,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What the choice depends on beside the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `semantics.endpoint_precedence`.
    pub(crate) precedence: EndpointPrecedence,
    /// Whether endpoints steer the packet's protocol.
    pub(crate) steered: bool,
}

/// Why a matching route did not win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loss {
    /// An endpoint route, and endpoints do not steer the protocol.
    NotSteered,
    /// An endpoint route matches, and comes first whatever the lengths (`endpoint_precedence = "documented"`).
    EndpointFirst,
    /// A user route to `Internet` leaves endpoint traffic where it is (`endpoint_precedence = "longest-prefix"`).
    InternetKeepsEndpoint,
    /// A learned route where a system route of network, peering or endpoint matches, which is preferred even if it is
    /// shorter.
    LearnedBelowSystem,
    /// The winner's prefix is longer.
    ShorterPrefix,
    /// The winner has the same prefix and a source that is preferred: user over BGP over system.
    LowerSource,
    /// The winner is a user route with the same prefix written out or from a more specific tag.
    LessSpecificTag,
    /// The winner is a system route of the same prefix that leads to a network or service.
    LowerSystemRoute,
    /// The winner has the same prefix and rank, and stands before it.
    LaterInTable,
}

/// Chooses among the routes that match a destination: the index of the winner in `candidates`, none if there is no
/// route. Every other candidate is told to `lost`, with its index.
///
/// ```text
/// an endpoint route counts only for protocols that endpoints steer
/// documented: if endpoint routes match, one of them wins
/// longest-prefix: if endpoint routes match, user routes to the internet do not count
/// if routes of network, peering or endpoint match, learned routes do not count
/// the longest prefix; then user, BGP, system; then explicit, regional tag, global tag, AzureCloud
/// ```
///
/// The order of candidates does not matter. Adding longer candidates never makes a losing one win, so a route that
/// loses at its own prefix loses everywhere below it.
pub(crate) fn select(candidates: &[Candidate], rules: Rules, mut lost: impl FnMut(usize, Loss)) -> Option<usize> {
    let (mut endpoint, mut special) = (false, false);
    for candidate in candidates {
        endpoint |= candidate.kind == Kind::Endpoint && rules.steered;
        special |= matches!(candidate.kind, Kind::VirtualNetwork | Kind::Peering);
    }
    let excluded = |kind: Kind| match kind {
        Kind::Endpoint => (!rules.steered).then_some(Loss::NotSteered),
        _ if endpoint && rules.precedence == EndpointPrecedence::Documented => Some(Loss::EndpointFirst),
        Kind::User { internet: true, .. } if endpoint => Some(Loss::InternetKeepsEndpoint),
        Kind::Learned if special || endpoint => Some(Loss::LearnedBelowSystem),
        _ => None,
    };
    let order = |candidate: &Candidate| {
        let kind = candidate.kind;
        (candidate.length, kind.source_rank(), kind.rank_in_source(), Reverse(candidate.route))
    };
    let winner = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| excluded(candidate.kind).is_none())
        .max_by_key(|(_, candidate)| order(candidate))
        .map(|(index, _)| index);
    for (index, candidate) in candidates.iter().enumerate() {
        if Some(index) == winner {
            continue;
        }
        if let Some(loss) = excluded(candidate.kind) {
            lost(index, loss);
        } else if let Some(winner) = winner.and_then(|winner| candidates.get(winner)) {
            lost(index, loss_to(winner, candidate));
        }
    }
    winner
}

/// Why a candidate that counts lost to the winner.
fn loss_to(winner: &Candidate, loser: &Candidate) -> Loss {
    if winner.length > loser.length {
        Loss::ShorterPrefix
    } else if winner.kind.source_rank() > loser.kind.source_rank() {
        Loss::LowerSource
    } else if winner.kind.rank_in_source() > loser.kind.rank_in_source() {
        if matches!(winner.kind, Kind::User { .. }) { Loss::LessSpecificTag } else { Loss::LowerSystemRoute }
    } else {
        Loss::LaterInTable
    }
}

impl Loss {
    /// The reason in words; `winner` is what the winner is called.
    pub(crate) fn text(self, winner: &str) -> String {
        match self {
            Self::NotSteered => "endpoints do not steer this protocol".to_owned(),
            Self::EndpointFirst => format!("{winner} comes first, whatever the prefix lengths"),
            Self::InternetKeepsEndpoint => "user routes to Internet leave endpoint traffic where it is".to_owned(),
            Self::LearnedBelowSystem => {
                "system routes of network, peering and endpoint come before learned ones, whatever the prefix lengths"
                    .to_owned()
            }
            Self::ShorterPrefix => format!("{winner} has a longer prefix"),
            Self::LowerSource => {
                format!("{winner} has the same prefix; user routes come before BGP, BGP before system")
            }
            Self::LessSpecificTag => format!(
                "{winner} has the same prefix; written out comes before regional tag, global tag and AzureCloud"
            ),
            Self::LowerSystemRoute => format!("{winner} has the same prefix and leads to a network or service"),
            Self::LaterInTable => format!("{winner} has the same prefix and stands before it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPLICIT: Kind = Kind::User { internet: false, prefix: PrefixRank::Explicit };
    const INTERNET: Kind = Kind::User { internet: true, prefix: PrefixRank::Explicit };

    fn choose(
        candidates: &[(Kind, u8)],
        precedence: EndpointPrecedence,
        steered: bool,
    ) -> (Option<usize>, Vec<(usize, Loss)>) {
        let candidates: Vec<_> =
            candidates.iter().zip(0..).map(|(&(kind, length), route)| Candidate { route, length, kind }).collect();
        let mut losses = Vec::new();
        let winner = select(&candidates, Rules { precedence, steered }, |index, loss| losses.push((index, loss)));
        (winner, losses)
    }

    #[test]
    fn no_candidate_has_no_winner() {
        assert_eq!(choose(&[], EndpointPrecedence::Documented, true), (None, vec![]));
        assert_eq!(
            choose(&[(Kind::Endpoint, 16)], EndpointPrecedence::Documented, false),
            (None, vec![(0, Loss::NotSteered)])
        );
    }

    #[test]
    fn precedence_decides_between_endpoint_and_longer_user_route() {
        let routes = [(Kind::Endpoint, 16), (EXPLICIT, 32)];
        assert_eq!(choose(&routes, EndpointPrecedence::Documented, true), (Some(0), vec![(1, Loss::EndpointFirst)]));
        assert_eq!(choose(&routes, EndpointPrecedence::LongestPrefix, true), (Some(1), vec![(0, Loss::ShorterPrefix)]));
        assert_eq!(choose(&routes, EndpointPrecedence::Documented, false), (Some(1), vec![(0, Loss::NotSteered)]));
    }

    #[test]
    fn longest_prefix_keeps_the_endpoint_from_user_routes_to_the_internet() {
        let routes = [(Kind::Endpoint, 16), (INTERNET, 24), (Kind::Internet, 0)];
        assert_eq!(
            choose(&routes, EndpointPrecedence::LongestPrefix, true),
            (Some(0), vec![(1, Loss::InternetKeepsEndpoint), (2, Loss::ShorterPrefix)])
        );
    }

    #[test]
    fn learned_routes_lose_to_special_system_routes_of_any_length() {
        for special in [Kind::VirtualNetwork, Kind::Peering, Kind::Endpoint] {
            let (winner, losses) =
                choose(&[(special, 8), (Kind::Learned, 24)], EndpointPrecedence::LongestPrefix, true);
            assert_eq!((winner, losses), (Some(0), vec![(1, Loss::LearnedBelowSystem)]));
        }
        let (winner, losses) =
            choose(&[(Kind::Internet, 0), (Kind::Learned, 0)], EndpointPrecedence::LongestPrefix, true);
        assert_eq!((winner, losses), (Some(1), vec![(0, Loss::LowerSource)]));
    }

    #[test]
    fn equal_prefixes_are_ordered_by_source_then_tag_then_place() {
        let user = |prefix| Kind::User { internet: false, prefix };
        let routes = [
            (Kind::VirtualNetwork, 16),
            (user(PrefixRank::AzureCloud), 16),
            (user(PrefixRank::RegionalTag), 16),
            (user(PrefixRank::RegionalTag), 16),
        ];
        assert_eq!(
            choose(&routes, EndpointPrecedence::Documented, true),
            (Some(2), vec![(0, Loss::LowerSource), (1, Loss::LessSpecificTag), (3, Loss::LaterInTable)])
        );
    }
}
