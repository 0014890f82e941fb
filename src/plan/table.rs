//! One table of routes: what it decides for a chain of prefixes, and which of its routes are Active.

use std::net::IpAddr;
use std::sync::OnceLock;

use super::chains::{Chains, Family};
use super::effective::Route;
use super::lists::ListId;
use super::resolve::Owner;
use super::select::{Candidate, Loss, Rules, select};

/// Whether a route can win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteState {
    /// At least one of its prefixes wins for a packet that no longer prefix matches.
    Active,
    /// Every prefix is overridden.
    Invalid,
}

impl RouteState {
    /// The name in Azure's JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Invalid => "Invalid",
        }
    }
}

/// A route of a table, and what became of it.
#[derive(Debug, Clone)]
pub struct EffectiveRoute {
    /// The route.
    pub route: Route,
    /// Whether it can win.
    pub state: RouteState,
    /// What it lost against.
    pub overridden: Vec<Overridden>,
}

/// Prefixes of a route that do not win at their own length, for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overridden {
    /// The reason.
    pub loss: Loss,
    /// Index of the route that wins instead; none if no route does.
    pub by: Option<usize>,
    /// For which packets: those that endpoints steer (`true`) or do not (`false`); none where both are alike.
    pub steered: Option<bool>,
    /// How many of the route's prefixes.
    pub prefixes: usize,
}

/// The routes of one or more subnets, or of the gateway.
#[derive(Debug)]
pub(crate) struct Table {
    /// Whose they are.
    pub(crate) owner: Owner,
    /// The routes in their order.
    pub(crate) routes: Vec<Route>,
    /// Routes by their lists, ascending.
    by_list: Vec<(ListId, u32)>,
    effective: OnceLock<Vec<EffectiveRoute>>,
}

impl Table {
    pub(crate) fn new(owner: Owner, routes: Vec<Route>) -> Self {
        let mut by_list: Vec<_> = routes.iter().map(|route| route.list).zip(0..).collect();
        by_list.sort_unstable();
        Self { owner, routes, by_list, effective: OnceLock::new() }
    }

    /// The lists that routes of the table have, each once.
    pub(crate) fn lists(&self) -> impl Iterator<Item = ListId> {
        self.by_list.chunk_by(|one, other| one.0 == other.0).filter_map(|same| same.first()).map(|(list, _)| *list)
    }

    /// The routes that have a list.
    fn routes_of(&self, list: ListId) -> impl Iterator<Item = u32> {
        let start = self.by_list.partition_point(|(other, _)| *other < list);
        self.by_list[start..].iter().take_while(move |(other, _)| *other == list).map(|(_, route)| *route)
    }

    /// The routes that match what a chain stands for; `chain` comes from the longest prefix to the shortest.
    pub(crate) fn matching(&self, chain: impl Iterator<Item = (u8, ListId)>, candidates: &mut Vec<Candidate>) {
        candidates.clear();
        for (length, list) in chain {
            for route in self.routes_of(list) {
                if candidates.iter().all(|candidate| candidate.route != route) {
                    candidates.push(Candidate { route, length, kind: self.routes[route as usize].kind });
                }
            }
        }
    }

    /// The routes that match a destination, each with the length of its longest prefix that contains it.
    pub(crate) fn matching_address(&self, destination: IpAddr) -> Vec<Candidate> {
        let longest = |route: &Route| {
            let containing = route.prefixes.iter().filter(|prefix| prefix.contains(&destination));
            containing.map(|prefix| prefix.prefix_len()).max()
        };
        let candidate = |(route, index): (&Route, u32)| {
            longest(route).map(|length| Candidate { route: index, length, kind: route.kind })
        };
        self.routes.iter().zip(0..).filter_map(candidate).collect()
    }

    /// The routes with their states.
    pub(crate) fn effective(&self, variants: &[Rules]) -> &[EffectiveRoute] {
        self.effective.get_or_init(|| {
            let mut effective: Vec<_> = self.routes.iter().map(|route| (route, Vec::new(), false)).collect();
            self.judge::<u32>(variants, &mut effective);
            self.judge::<u128>(variants, &mut effective);
            effective
                .into_iter()
                .map(|(route, mut overridden, wins)| {
                    tidy(&mut overridden);
                    let state = if wins { RouteState::Active } else { RouteState::Invalid };
                    EffectiveRoute { route: route.clone(), state, overridden }
                })
                .collect()
        })
    }

    /// Lets the routes of one family compete at each of their prefixes.
    fn judge<A: Family>(&self, variants: &[Rules], effective: &mut [(&Route, Vec<Overridden>, bool)]) {
        let prefixes_of = |list| self.routes_of(list).next().map(|route| &*self.routes[route as usize].prefixes);
        let lists = self.lists().filter_map(|list| prefixes_of(list).map(|prefixes| (list, prefixes)));
        let chains = Chains::<A>::build(lists, []);
        let mut counts = vec![0_usize; chains.nodes.len()];
        for (_, _, node) in &chains.prefixes {
            counts[*node as usize] += 1;
        }
        let mut candidates = Vec::new();
        for (index, node) in (0..).zip(&chains.nodes) {
            self.matching(chains.lists(index), &mut candidates);
            for rules in variants {
                let mut losses = Vec::new();
                let winner = select(&candidates, *rules, |loser, loss| losses.push((loser, loss)));
                let winner = winner.map(|winner| candidates[winner].route as usize);
                if let Some((_, _, wins)) = winner.and_then(|winner| effective.get_mut(winner)) {
                    *wins = true;
                }
                for (loser, loss) in losses.into_iter().filter(|(loser, _)| candidates[*loser].length == node.depth) {
                    let lost = Overridden {
                        loss,
                        by: winner,
                        steered: (variants.len() > 1).then_some(rules.steered),
                        prefixes: counts[index as usize],
                    };
                    note(&mut effective[candidates[loser].route as usize].1, lost);
                }
            }
        }
    }
}

/// Puts together what is alike for steered and other packets, and leaves out that endpoints do not steer some protocols
/// where they steer others: that is no loss.
fn tidy(overridden: &mut Vec<Overridden>) {
    let mut tidied: Vec<Overridden> = Vec::new();
    for lost in overridden.drain(..) {
        if lost.loss == Loss::NotSteered && lost.steered.is_some() {
            continue;
        }
        let same =
            |other: &&mut Overridden| (other.loss, other.by, other.prefixes) == (lost.loss, lost.by, lost.prefixes);
        match tidied.iter_mut().find(same) {
            Some(other) => other.steered = None,
            None => tidied.push(lost),
        }
    }
    *overridden = tidied;
}

/// Adds a loss to the entry that is alike, if there is one.
fn note(overridden: &mut Vec<Overridden>, lost: Overridden) {
    let alike = |other: &&mut Overridden| (other.loss, other.by, other.steered) == (lost.loss, lost.by, lost.steered);
    match overridden.iter_mut().find(alike) {
        Some(other) => other.prefixes += lost.prefixes,
        None => overridden.push(lost),
    }
}
