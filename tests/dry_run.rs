//! What a node says that a change would do is what the change then does: a whole node with two real workers over memory
//! ports, and real flows.

#[path = "behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sidestep::control::answers::{DocumentAnswer, EndpointAnswer, FlowAnswer, FlowChanges};
use sidestep::control::dataplane::{Devices, Queues};
use sidestep::control::document::Document;
use sidestep::control::node::{Loaded, Node, Overrides};
use sidestep::control::ports::Attachment;
use sidestep::control::refusal::Refusal;
use sidestep::port::{Port, memory};
use sidestep::worker::{Handle, Paths, Poll, Settings};

use packets::{Seen, Tcp, decode, echo, udp};

const WORKERS: u16 = 2;
const WORKLOAD: &str = "spoke/workload";
const STORAGE: &str = "Microsoft.Storage";
const SERVICE: (&str, u16) = ("20.60.1.10", 443);
/// An address of another service, whose endpoint nobody switches.
const DATABASE: (&str, u16) = ("20.61.9.10", 1433);

/// The other side of each worker's queue, by port.
type Wires = Arc<Mutex<BTreeMap<String, Vec<memory::Handle>>>>;

/// Devices in memory.
struct MemoryDevices(Wires);

impl Devices for MemoryDevices {
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal> {
        let (ours, theirs): (Queues, Vec<_>) = (0..WORKERS)
            .map(|_| memory::port(memory::Settings::default()))
            .map(|(ours, theirs)| (Box::new(ours) as Box<dyn Port>, theirs))
            .unzip();
        self.0.lock().unwrap().insert(attachment.name.clone(), theirs);
        Ok(ours)
    }

    fn keep(&self, _: &mut Queues) -> io::Result<()> {
        Ok(())
    }

    fn adjust(&self, _: &Attachment, _: &Attachment) -> Result<(), Refusal> {
        Ok(())
    }
}

fn document() -> String {
    let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
    format!("tags = {:?}\n{}", catalogue.to_str().unwrap(), bench::NETWORK)
}

struct Setup {
    node: Node,
    wires: Wires,
}

impl Setup {
    fn new() -> Self {
        let document = Document { path: "/dry_run.toml".into(), text: document() };
        let overrides = Overrides { workers: Some(WORKERS), ..Overrides::default() };
        let wires = Wires::default();
        let devices = Box::new(MemoryDevices(wires.clone()));
        let settings = Settings { workers: WORKERS, flow_limit: 10_000, seed: 5, poll: Poll::Sleep };
        let loaded = Loaded::load(document, overrides).unwrap();
        let paths = Paths::new(loaded.snapshot(), &settings);
        let node = loaded.start(devices, |publisher, ports| Handle::start(publisher, ports, paths)).unwrap();
        Self { node, wires }
    }

    /// A packet enters through a worker's queue of a port, and leaves through one of another. Where it does not, says so.
    #[track_caller]
    fn carry(&self, worker: usize, from: &str, packet: Vec<u8>, to: &str) -> Seen {
        assert!(self.wires.lock().unwrap()[from][worker].inject(packet));
        self.wait(&format!("nothing leaves through {to}"), || {
            let wires = self.wires.lock().unwrap();
            wires[to].iter().find_map(|queue| queue.collect()).map(|packet| decode(&packet.bytes))
        })
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(reached) = reached() {
                return reached;
            }
            assert!(Instant::now() < deadline, "{what}: {:#?}", self.node.counters());
            std::thread::yield_now();
        }
    }

    /// Opens a TCP connection of vm1.
    fn connect(&self, worker: usize, port: u16, to: (&str, u16), through: &str) {
        self.answered(worker, port, to, through);
        self.send(worker, port, to, "A", through);
    }

    /// A SYN and its answer.
    fn answered(&self, worker: usize, port: u16, to: (&str, u16), through: &str) {
        let from = ("10.1.1.4", port);
        self.carry(worker, "vm1", Tcp { from, to, ..Tcp::default() }.bytes(), through);
        let answer = Tcp { from: to, to: from, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
        self.carry(worker, through, answer.bytes(), "vm1");
    }

    fn send(&self, worker: usize, port: u16, to: (&str, u16), flags: &str, through: &str) {
        let from = ("10.1.1.4", port);
        let packet = Tcp { from, to, flags, sequence: 1_001, acknowledgment: 9_001, ..Tcp::default() };
        self.carry(worker, "vm1", packet.bytes(), through);
    }

    /// Flows of all kinds, those of vm1 to the service through a port: three that a switch resets, four that it moves and
    /// five that it leaves alone.
    fn populate(&self, first_port: u16, through: &str) {
        let port = |number: u16| first_port + number;
        self.connect(0, port(0), SERVICE, through);
        self.connect(1, port(1), SERVICE, through);
        self.send(1, port(1), SERVICE, "FA", through);
        self.answered(1, port(2), SERVICE, through);

        self.carry(0, "vm1", Tcp { from: ("10.1.1.4", port(3)), to: SERVICE, ..Tcp::default() }.bytes(), through);
        self.carry(1, "vm1", udp(("10.1.1.4", port(4)), SERVICE, b"x"), through);
        self.carry(0, "vm1", udp(("fd00:1:0:1::4", port(5)), ("2603:1020:206:100::10", 443), b"x"), through);
        self.carry(0, "vm1", echo("10.1.1.4", SERVICE.0, false, port(6), 64), through);

        self.connect(0, port(7), DATABASE, "gateway");
        self.connect(1, port(8), ("192.168.1.1", 22), "gateway");
        self.carry(1, "vm3", udp(("10.1.3.4", port(9)), ("198.51.100.80", 53), b"x"), "internet");
        self.carry(
            0,
            "vm3",
            Tcp { from: ("10.1.3.4", port(10)), to: SERVICE, ..Tcp::default() }.bytes(),
            "contosodata",
        );
        self.carry(0, "vm1", udp(("10.1.1.4", port(11)), ("10.1.3.4", 5), b"x"), "vm3");
    }

    /// Flows as they are now, without those that an earlier change has ended.
    fn alive(&self) -> BTreeMap<String, FlowAnswer> {
        let flows = self.node.flows(usize::MAX).flows.into_iter();
        flows.filter(|flow| !is_trace(flow)).map(|flow| (key(&flow), flow)).collect()
    }

    /// Holds an answer of a dry run to what has happened since: to the flows before and now, the counters before and now,
    /// and the resets that left.
    #[track_caller]
    fn hold(&self, foreseen: &FlowChanges, before: &BTreeMap<String, FlowAnswer>, counted: [u64; 3]) {
        let cut: BTreeMap<String, FlowAnswer> = foreseen.cut.iter().map(|flow| (key(flow), flow.clone())).collect();
        assert_eq!(cut.len() as u64, foreseen.reset + foreseen.moved, "each is listed once");
        let after = self.alive();
        for (key, flow) in before {
            match cut.get(key) {
                Some(listed) => {
                    assert_eq!(listed, flow, "listed as it was");
                    assert!(!after.contains_key(key), "{key} was to be cut");
                }
                None => assert_eq!(after[key].packets, flow.packets, "{key} was to live on"),
            }
        }
        assert!(cut.keys().all(|key| before.contains_key(key)));
        assert_eq!(foreseen.kept, after.len() as u64);
        let now = self.counted();
        let differences: Vec<u64> = now.iter().zip(counted).map(|(now, before)| now - before).collect();
        assert_eq!([foreseen.reset, foreseen.moved, foreseen.kept], *differences);
    }

    fn generation(&self) -> u64 {
        self.node.health().generation
    }

    fn counted(&self) -> [u64; 3] {
        let counters = self.node.counters();
        [counters.flows_reset, counters.flows_moved, counters.flows_kept]
    }

    /// Ports of vm1 whose connections got a reset.
    fn resets(&self) -> BTreeSet<u16> {
        let wires = self.wires.lock().unwrap();
        let packets = wires["vm1"].iter().flat_map(memory::Handle::collect_all);
        packets
            .map(|packet| decode(&packet.bytes))
            .map(|seen| {
                assert!(seen.tcp.is_some_and(|tcp| tcp.reset), "nothing but resets");
                seen.destination_port
            })
            .collect()
    }
}

fn key(flow: &FlowAnswer) -> String {
    format!("{} {} {} {} {}", flow.protocol, flow.ingress, flow.source, flow.destination, flow.presented)
}

fn is_trace(flow: &FlowAnswer) -> bool {
    flow.phase == "reset" || flow.phase == "moved"
}

#[test]
fn switching_an_endpoint_does_what_was_foreseen() {
    let setup = Setup::new();
    let mut first_port = 20_000;
    for (generation, enabled, through) in [(1, true, "gateway"), (2, false, "contosodata")] {
        setup.populate(first_port, through);
        let (before, counted) = (setup.alive(), setup.counted());
        let dry = setup.node.try_endpoint(WORKLOAD, STORAGE, enabled).unwrap();
        assert_eq!((dry.changed, dry.dry_run, dry.generation), (true, true, generation));
        assert_eq!((dry.flows.reset, dry.flows.moved), (3, 4), "{:#?}", dry.flows);
        assert_eq!(setup.alive(), before, "nothing was done");
        assert_eq!(setup.resets(), BTreeSet::new());
        assert_eq!(setup.counted(), counted);

        let done = setup.node.set_endpoint("test", WORKLOAD, STORAGE, enabled).unwrap();
        assert_eq!(done, EndpointAnswer { dry_run: false, generation: generation + 1, ..dry.clone() });
        setup.hold(&dry.flows, &before, counted);
        assert_eq!(setup.resets(), (first_port..first_port + 3).collect());
        for queue in &setup.wires.lock().unwrap()[through] {
            let reset = |packet: &memory::Packet| decode(&packet.bytes).tcp.is_some_and(|tcp| tcp.reset);
            assert!(queue.collect_all().iter().all(reset), "the other ends got resets, too, and nothing else");
        }
        assert_eq!(dry.routes.len(), 1);
        assert_eq!((dry.routes[0].added.is_empty(), dry.routes[0].removed.is_empty()), (!enabled, enabled));
        first_port += 100;
    }
    setup.connect(0, first_port, SERVICE, "gateway");
}

#[test]
fn applying_a_document_does_what_was_foreseen() {
    let setup = Setup::new();
    setup.populate(20_000, "gateway");
    setup.carry(0, "vm2", udp(("10.1.2.4", 7), ("10.1.3.4", 7), b"x"), "vm3");
    let (before, counted) = (setup.alive(), setup.counted());
    // Storage gets an endpoint, the rest of the tunnel of IPv4 ends, and a NIC goes.
    let next = document()
        .replace(
            "route_table = \"to-on-premises\"",
            "route_table = \"to-on-premises\"\n  service_endpoints = [{ service = \"Microsoft.Storage\" }]",
        )
        .replace(
            "address_prefix = \"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\"",
            "address_prefix = \"0.0.0.0/0\", next_hop_type = \"None\"",
        )
        .replace("name = \"vm2\"\nsubnet", "name = \"vm9\"\nsubnet")
        .replace("10.1.2.4", "10.1.2.9")
        .replace("fd00:1:0:2::4", "fd00:1:0:2::9")
        .replace("t-vm2", "t-vm9");
    let dry = setup.node.try_document(&next, None).unwrap();
    assert_eq!((dry.dry_run, dry.generation), (true, 1));
    assert_eq!((&*dry.ports_added, &*dry.ports_removed), (&["vm9".to_owned()][..], &["vm2".to_owned()][..]));
    // Beside what the endpoint does, the connection to the database, which is unreachable, is reset, and the flow of the
    // NIC that goes ends.
    assert_eq!((dry.flows.reset, dry.flows.moved, dry.flows.kept), (4, 5, 4), "{:#?}", dry.flows);
    assert_eq!(setup.alive(), before, "nothing was done");
    assert!(setup.wires.lock().unwrap().get("vm9").is_none(), "nor opened");

    let done = setup.node.apply("test", &next, None).unwrap();
    assert_eq!(done, DocumentAnswer { dry_run: false, generation: 2, ..dry.clone() });
    setup.hold(&dry.flows, &before, counted);
    assert_eq!(setup.resets(), [20_000, 20_001, 20_002, 20_007].into());
}

/// The catalogue of the tests, with the service's addresses or without.
fn catalogue(with_service: bool) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json")).unwrap();
    if with_service {
        return text;
    }
    let mut catalogue: serde_json::Value = serde_json::from_str(&text).unwrap();
    for tag in catalogue["values"].as_array_mut().unwrap() {
        if tag["name"].as_str().unwrap().starts_with("Storage") {
            let prefixes = tag["properties"]["addressPrefixes"].as_array_mut().unwrap();
            prefixes.retain(|prefix| {
                !["20.60.", "2603:1020:206:"].iter().any(|start| prefix.as_str().unwrap().starts_with(start))
            });
        }
    }
    catalogue.to_string()
}

#[test]
fn changing_the_catalogue_does_what_was_foreseen() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [in_force, next] = ["in-force.json", "next.json"].map(|name| folder.path().join(name));
    std::fs::write(&in_force, catalogue(true)).unwrap();
    assert_eq!(setup.node.apply_catalogue("test", &in_force).unwrap().routes, [], "the same prefixes");

    // By hand, and then by the node itself, that sees its file change. The service is reached as the catalogue says.
    for (first_port, with_service, automatic) in [(20_000, false, false), (21_000, true, false), (22_000, false, true)]
    {
        let (through, generation) = (if with_service { "gateway" } else { "contosodata" }, setup.generation());
        setup.populate(first_port, through);
        std::fs::write(&next, catalogue(with_service)).unwrap();
        let (before, counted) = (setup.alive(), setup.counted());
        let dry = setup.node.try_catalogue(&next).unwrap();
        assert_eq!((dry.dry_run, dry.generation), (true, generation));
        assert_eq!((dry.flows.reset, dry.flows.moved), (3, 4), "{:#?}", dry.flows);
        assert_eq!(dry.routes.len(), 1);
        assert_eq!(setup.alive(), before, "nothing was done");
        assert_eq!(setup.counted(), counted);
        assert_eq!(setup.resets(), BTreeSet::new());

        if automatic {
            std::fs::rename(&next, &in_force).unwrap();
            assert!(setup.node.reload_catalogue());
            assert_eq!(setup.generation(), generation + 1);
        } else {
            let done = setup.node.apply_catalogue("test", &next).unwrap();
            assert_eq!(done, DocumentAnswer { dry_run: false, generation: generation + 1, ..dry.clone() });
            // So that the next round replaces what is in force.
            std::fs::rename(&next, &in_force).unwrap();
            setup.node.apply_catalogue("test", &in_force).unwrap();
        }
        let change = setup
            .node
            .status()
            .changes
            .into_iter()
            .rfind(|change| change.effect.as_ref().is_some_and(|effect| effect.subnets > 0));
        let effect = change.unwrap().effect.unwrap();
        assert_eq!(effect.routes, dry.routes);
        let flows = [dry.flows.reset, dry.flows.moved, dry.flows.kept];
        assert_eq!([effect.flows_reset, effect.flows_moved, effect.flows_kept], flows);
        if automatic {
            setup.hold(&dry.flows, &before, counted);
        }
        assert_eq!(setup.resets(), (first_port..first_port + 3).collect());
        for wires in setup.wires.lock().unwrap().values() {
            wires.iter().for_each(|wire| drop(wire.collect_all()));
        }
    }
}

#[test]
fn flows_beyond_what_is_listed_are_counted() {
    let setup = Setup::new();
    // More than workers look at between two batches of packets.
    for (worker, ports) in [(0, 1_000..1_700), (1, 5_000..5_007)] {
        for port in ports {
            assert!(setup.wires.lock().unwrap()["vm1"][worker].inject(udp(("10.1.1.4", port), SERVICE, b"x")));
        }
    }
    setup.wait("not every flow was made", || (setup.node.flows(usize::MAX).flows.len() == 707).then_some(()));
    let dry = setup.node.try_endpoint(WORKLOAD, STORAGE, true).unwrap();
    assert_eq!((dry.flows.reset, dry.flows.moved, dry.flows.kept, dry.flows.cut.len()), (0, 707, 0, 107));
    let done = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert_eq!(done, EndpointAnswer { dry_run: false, generation: 2, ..dry });
    assert_eq!(setup.alive(), BTreeMap::new());
}
