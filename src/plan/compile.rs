//! The snapshot: classes of destinations, and for each table the row of hops by class.
//!
//! Two destinations are in one class if every table treats them alike. Every distinct prefix of any table, and every
//! address of a NIC or service, is looked at once. Its outcome in all tables is worked out once for its chain (see
//! [`super::chains`]) from that of the chain above: only tables that have a route at the prefix choose again, and only
//! addresses of NICs and services follow next hops again. Chains with equal outcomes are one class, and prefixes whose
//! class is that of the prefix around them are left out of the prefix table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::chains::{Chains, Family};
use super::lists::ListId;
use super::policies::Policies;
use super::ports::Ports;
use super::resolve::{Delivery, Target};
use super::resources::{self, Compiled};
use super::select::{Rules, select};
use super::sources::{self, Sources};
use super::{Plan, PlanError};
use crate::model::network::Network;
use crate::snapshot::{
    Hop, HopAction, Lifetimes, NextHopType, PortEntry, PortId, PortKind, RouteInfo, RouteTable, Snapshot, TableId,
    Unroutable,
};
use crate::table::prefix::PrefixTable;

/// No route, as [`Hop::route`] and in the winners of a chain.
const NO_ROUTE: u32 = u32::MAX;

pub(super) fn compile(plan: &Plan, generation: u64, previous: Option<&Snapshot>) -> Result<Snapshot, PlanError> {
    let network = &*plan.network;
    let mut names: Vec<(String, usize)> =
        plan.subnets.iter().map(|(subnet, table)| (network.subnet_name(*subnet), *table)).collect();
    names.extend(plan.gateway.map(|table| ("gateway".to_owned(), table)));
    let gateway = u16::try_from(names.len() - usize::from(plan.gateway.is_some()));
    let gateway = TableId(gateway.map_err(|_| PlanError::TooManyTables)?);
    let table_of = |target| match target {
        Target::Nic(nic) => {
            let subnet = network.nics[nic].subnet;
            let found = plan.subnets.binary_search_by_key(&subnet, |(subnet, _)| *subnet).ok()?;
            Some(TableId(found as u16))
        }
        Target::Gateway => Some(gateway),
        _ => None,
    };
    let sources = Sources::new(network, &plan.regions, previous)?;
    let policies = Policies::new(network);
    let before = previous.map(|snapshot| &*snapshot.ports).unwrap_or_default();
    let resources_before = previous.map(|snapshot| &*snapshot.resources.list).unwrap_or_default();
    let numbered = Ports::assign(network, before, &sources, &policies, &plan.groups, table_of)?;

    let (nsgs, address_sets) = plan.groups.compile()?;
    let Compiled { resources, declared } =
        resources::compile(network, &numbered, &sources.identities, resources_before);
    let policies = policies.compile(&declared);
    let platform = numbered.of(Target::Platform).filter(|(_, has_device)| *has_device).map(|(port, _)| port);

    let mut hops = Interner::default();
    let (classes_v4, rows_v4) = Rows::compile::<u32>(plan, &numbered, &mut hops);
    let (classes_v6, rows_v6) = Rows::compile::<u128>(plan, &numbered, &mut hops);

    let routes: Vec<Vec<RouteInfo>> = plan
        .tables
        .iter()
        .map(|table| table.routes.iter().map(|route| RouteInfo { text: route.text() }).collect())
        .collect();
    let tables = names
        .into_iter()
        .map(|(name, table)| RouteTable {
            name,
            steered_v4: rows_v4.row(table, true),
            unsteered_v4: rows_v4.row(table, false),
            steered_v6: rows_v6.row(table, true),
            unsteered_v6: rows_v6.row(table, false),
            routes: routes[table].clone(),
        })
        .collect();
    Ok(Snapshot {
        generation,
        public: public(&numbered.entries),
        instances: instances(network, &numbered),
        ports: numbered.entries,
        classes_v4,
        classes_v6,
        tables,
        hops: hops.values,
        nsgs,
        address_sets,
        resources,
        policies,
        platform,
        pools: sources.pools,
        identities: sources.identities,
        lifetimes: sources::lifetimes(&network.flows.lifetimes, Lifetimes::RFC),
        flow_limit_per_nic: network.flows.limit_per_nic,
        flow_limit: network.flows.limit,
        steered: std::array::from_fn(|protocol| network.semantics.endpoint_protocols.steers(protocol as u8)),
    })
}

/// The addresses of services with their ports.
fn public(ports: &[PortEntry]) -> Vec<(IpAddr, PortId)> {
    let services = ports.iter().zip(0..).filter(|(port, _)| port.kind == PortKind::Service);
    let addresses = services.flat_map(|(port, number)| port.addresses.iter().map(move |a| (*a, PortId(number))));
    let mut public: Vec<_> = addresses.collect();
    public.sort_unstable();
    public
}

/// Public addresses of NICs with their ports and the private addresses behind them.
fn instances(network: &Network, ports: &Ports) -> Vec<(IpAddr, PortId, IpAddr)> {
    let nics = network.nics.iter().enumerate().filter_map(|(index, nic)| Some((nic, ports.of(Target::Nic(index))?.0)));
    let addresses = nics
        .flat_map(|(nic, port)| sources::instance_addresses(nic).map(move |(private, public)| (public, port, private)));
    let mut instances: Vec<_> = addresses.collect();
    instances.sort_unstable();
    instances
}

/// Distinct values, numbered.
struct Interner<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    fn number(&mut self, value: T) -> u32 {
        let values = &mut self.values;
        *self.numbers.entry(value).or_insert_with_key(|value| {
            values.push(value.clone());
            (values.len() - 1) as u32
        })
    }
}

/// What is known of a chain that other chains may stand below.
struct Outcome {
    /// Winning route of each column.
    winners: Vec<u32>,
    /// Hop of each column.
    hops: Vec<u32>,
}

/// The classes of one family. A class is a row of hops with a column for each table and kind of packet.
struct Rows {
    variants: Vec<Rules>,
    classes: Vec<Arc<[u32]>>,
}

impl Rows {
    fn compile<A: Family>(plan: &Plan, ports: &Ports, hops: &mut Interner<Hop>) -> (PrefixTable<A>, Self) {
        let variants = plan.variants();
        let columns = plan.tables.len() * variants.len();
        let lists = plan.lists.all().map(|(list, prefixes)| (list, &**prefixes));
        let chains = Chains::<A>::build(lists, plan.resolver.addresses().filter_map(A::from_address));
        let mut users: Vec<Vec<usize>> = plan.lists.all().map(|_| Vec::new()).collect();
        for (index, table) in plan.tables.iter().enumerate() {
            for list in table.lists() {
                users[list.0 as usize].push(index);
            }
        }
        let nothing = hops.number(Hop {
            next_hop_type: NextHopType::None,
            action: HopAction::Drop(Unroutable::NoRoute),
            route: NO_ROUTE,
        });

        let mut classes = Interner::<Arc<[u32]>>::default();
        let mut class_of: Vec<u32> = Vec::with_capacity(chains.nodes.len());
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(chains.nodes.len());
        let mut candidates = Vec::new();
        for (number, node) in (0..).zip(&chains.nodes) {
            let above = node.parent.and_then(|parent| outcomes[parent as usize].as_ref());
            let (mut winners, mut row) = match above {
                Some(above) => (above.winners.clone(), above.hops.clone()),
                None => (vec![NO_ROUTE; columns], vec![nothing; columns]),
            };
            let hop = |table: usize, route: u32| hop(plan, ports, table, route, node.host.map(A::to_address));
            for &table in touched(&node.lists, &users).iter() {
                plan.tables[table].matching(chains.lists(number), &mut candidates);
                for (variant, rules) in variants.iter().enumerate() {
                    let winner = select(&candidates, *rules, |_, _| ());
                    let column = table * variants.len() + variant;
                    winners[column] = winner.map_or(NO_ROUTE, |winner| candidates[winner].route);
                    row[column] = hop(table, winners[column]).map_or(nothing, |hop| hops.number(hop));
                }
            }
            if node.host.is_some() {
                for (column, winner) in winners.iter().enumerate() {
                    let found = hop(column / variants.len(), *winner);
                    row[column] = found.map_or(nothing, |hop| hops.number(hop));
                }
            }
            class_of.push(classes.number(row.as_slice().into()));
            // An address of a NIC or service has nothing below it.
            outcomes.push(node.host.is_none().then_some(Outcome { winners, hops: row }));
        }

        let same_as_above = |node: u32| {
            let above = chains.nodes[node as usize].parent.map(|parent| class_of[parent as usize]);
            above == Some(class_of[node as usize])
        };
        let prefixes = chains.prefixes.iter().filter(|(_, _, node)| !same_as_above(*node));
        let entries = prefixes.map(|&(address, length, node)| (address, length, class_of[node as usize])).collect();
        (PrefixTable::build(entries), Self { variants, classes: classes.values })
    }

    /// The hops of a table by class. Where all packets are of one kind, both rows are that kind's.
    fn row(&self, table: usize, steered: bool) -> Vec<u32> {
        let variant = self.variants.iter().position(|rules| rules.steered == steered).unwrap_or(0);
        let column = table * self.variants.len() + variant;
        self.classes.iter().map(|class| class[column]).collect()
    }
}

/// The tables that have a route of any of the lists.
fn touched<'u>(lists: &[ListId], users: &'u [Vec<usize>]) -> Cow<'u, [usize]> {
    match lists {
        [] => Cow::Borrowed(&[]),
        [list] => Cow::Borrowed(&users[list.0 as usize]),
        _ => {
            let mut tables: Vec<usize> = lists.iter().flat_map(|list| users[list.0 as usize].iter().copied()).collect();
            tables.sort_unstable();
            tables.dedup();
            Cow::Owned(tables)
        }
    }
}

/// The hop of a table's route for an address of a NIC or service, or for any other.
fn hop(plan: &Plan, ports: &Ports, table: usize, route: u32, destination: Option<IpAddr>) -> Option<Hop> {
    let table = &plan.tables[table];
    let next_hop = table.routes.get(route as usize)?.next_hop;
    let delivery = plan.resolver.resolve(&plan.network, table.owner, next_hop, destination);
    let action = match delivery {
        Ok(Delivery { target, source, forwarded_allowed }) => match ports.of(target) {
            Some((port, true)) => HopAction::Deliver { port, source, forwarded_allowed },
            _ => HopAction::Drop(Unroutable::NoDevice),
        },
        Err(unroutable) => HopAction::Drop(unroutable),
    };
    Some(Hop { next_hop_type: next_hop.next_hop_type(), action, route })
}
