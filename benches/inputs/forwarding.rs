//! Paths of one worker without devices, and packets for them.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use sidestep::packet::frame::Frame;
use sidestep::path::counters::Counters;
use sidestep::path::forwarder::Settings;
use sidestep::path::shared::Shared;
use sidestep::path::{Egress, Forwarder, SendFailure};
use sidestep::plan::Plan;
use sidestep::port::prefer_huge_pages;
use sidestep::snapshot::{PortId, Snapshot};
use sidestep::tags::Catalogue;

use crate::bench::{Bench, NETWORK};
use crate::packets::udp;

/// Takes every packet and keeps none.
pub(crate) struct Sink;

impl Egress for Sink {
    fn send(&mut self, _now: u64, _port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        black_box(frame.bytes());
        Ok(())
    }
}

/// How long a UDP flow lives in [`network_with_endpoint`], in milliseconds.
pub(crate) const LIFETIME: u64 = 3_600_000;

/// The behaviour tests' network with an endpoint, and with room for this many flows of every NIC.
pub(crate) fn network_with_endpoint(flow_limit: u32) -> Arc<Snapshot> {
    let mut bench = Bench::with_endpoint();
    bench.change(|network| {
        network.flows.limit = flow_limit;
        network.flows.limit_per_nic = flow_limit;
        network.flows.lifetimes.udp = Some(Duration::from_millis(LIFETIME));
    });
    bench.forwarder.snapshot().clone()
}

/// A path under a snapshot, with room for so many flows of each family.
pub(crate) fn forwarder(snapshot: Arc<Snapshot>, flow_limit: usize) -> Forwarder {
    let settings = Settings { flow_limit, seed: 11, worker: 0, shared: Arc::new(Shared::new(1)) };
    let mut forwarder = Forwarder::new(snapshot, Arc::new(Counters::new()), settings);
    // As those of a node are.
    forwarder.spread_out().into_iter().for_each(prefer_huge_pages);
    forwarder
}

/// The port of a name.
pub(crate) fn port(snapshot: &Snapshot, name: &str) -> PortId {
    PortId(snapshot.ports.iter().position(|port| port.name == name).expect("a port of the name") as u16)
}

/// A packet of flow `number` from vm1 to the service.
pub(crate) fn packet(number: u32) -> Vec<u8> {
    let port = (number % 60_000) as u16 + 1_000;
    let service = (number / 60_000) as u16 + 1;
    udp(("10.1.1.4", port), ("20.60.1.10", service), &[0; 22])
}

/// First packets of vm1 to addresses everywhere in a catalogue, to ports below those of the rules that deny
/// ([`network_with_rules`]).
pub(crate) fn packets_anywhere(catalogue: &Catalogue, count: usize) -> Vec<Vec<u8>> {
    let mut random = Rng::with_seed(9);
    let prefixes: Vec<Ipv4Addr> =
        catalogue.tags().flat_map(|tag| tag.prefixes_v4.iter().map(|prefix| prefix.network())).collect();
    let mut draw = || {
        let to = prefixes[random.usize(..prefixes.len())].to_string();
        udp(("10.1.1.4", random.u16(1_024..)), (&to, random.u16(1..1_000)), &[0; 22])
    };
    (0..count).map(|_| draw()).collect()
}

/// The snapshot of a document of the behaviour tests' network.
pub(crate) fn compile(document: &str, catalogue: &Arc<Catalogue>) -> Arc<Snapshot> {
    let network = sidestep::model::parse(document, Path::new("bench.toml"), Some(&**catalogue))
        .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
    let plan = Plan::new(Arc::new(network), catalogue.clone());
    Arc::new(plan.compile(1, None).expect("the catalogue has every tag"))
}

/// The behaviour tests' network with groups of so many rules, all about tags and ports that no packet here has but for one
/// that allows everything: the last, or the first.
pub(crate) fn network_with_rules(catalogue: &Catalogue, users: &[&str], count: usize, allowing_last: bool) -> String {
    let tags: Vec<&str> =
        catalogue.tags().filter(|tag| tag.has_feature("NSG") && tag.prefix_count() > 0).map(|tag| &*tag.name).collect();
    let mut text = format!("tags = \"service-tags.json\"\n{NETWORK}");
    for (number, user) in users.iter().enumerate() {
        let place = format!("name = \"{user}\"\n");
        text = text.replace(&place, &format!("{place}network_security_group = \"g{number}\"\n"));
        let mut rules = String::new();
        for rule in 0..count - 1 {
            let (source, destination) = match rule % 3 {
                0 => ("*", tags[(rule * 2 + number) % tags.len()]),
                1 => ("VirtualNetwork", tags[(rule * 2 + number) % tags.len()]),
                _ => (tags[(rule * 2 + number) % tags.len()], tags[(rule * 2 + number + 1) % tags.len()]),
            };
            let first = 1_000 + rule * 50;
            // Writing to a String cannot fail.
            let _ = writeln!(
                rules,
                "{{ name = \"r{rule}\", priority = {}, direction = \"Outbound\", access = \"Deny\", protocol = \"Udp\", \
                 source_address_prefix = \"{source}\", destination_address_prefix = \"{destination}\", \
                 destination_port_range = \"{first}-{}\" }},",
                200 + rule,
                first + 49
            );
        }
        let _ = writeln!(
            text,
            "[[network_security_group]]\nname = \"g{number}\"\nsecurity_rules = [{rules}\
             {{ name = \"rest\", priority = {}, direction = \"Outbound\", access = \"Allow\", protocol = \"*\", \
             destination_port_range = \"*\" }}]",
            if allowing_last { 4_000 } else { 100 }
        );
    }
    text
}

/// What this thread has used of a processor: what others do on the machine counts by what it does to caches alone.
pub(crate) fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}
