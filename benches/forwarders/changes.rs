//! A node whose document and catalogue are replaced again and again under load: what is lost of a steady stream, and what
//! becomes of a TCP connection.
//!
//! The network has fifty subnets with an endpoint for each of up to nine services, and the catalogue is Azure's weekly file
//! where it is there (`SIDESTEP_TAGS` names it, or `../shared/data` has it), else the small one of the demo. The week after
//! is made up: every tag loses each fiftieth prefix and gains another.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::{Value, json};
use sidestep::control::answers::DocumentAnswer;
use sidestep::control::client::target;
use sidestep::port::namespace;

use crate::datagrams::{HEADERS, Link};
use crate::ending::Ending;
use crate::sites::{DOCUMENT, Node, SERVICE, Site};
use crate::stream::{Pace, Search, during, stream};

/// Subnets of the network beside that of the VM.
const SUBNETS: usize = 49;

/// Services that have an endpoint in each of them, with their tags.
const SERVICES: [(&str, &str); 9] = [
    ("Microsoft.Storage", "Storage"),
    ("Microsoft.Sql", "Sql"),
    ("Microsoft.AzureCosmosDB", "AzureCosmosDB"),
    ("Microsoft.KeyVault", "AzureKeyVault"),
    ("Microsoft.ServiceBus", "ServiceBus"),
    ("Microsoft.EventHub", "EventHub"),
    ("Microsoft.AzureActiveDirectory", "AzureActiveDirectory"),
    ("Microsoft.Web", "AppService"),
    ("Microsoft.ContainerRegistry", "AzureContainerRegistry"),
];

/// Size of the IP packets of the stream.
const SIZE: usize = 64;

/// Port of the TCP connection.
const PORT: u16 = 9_001;

/// How often the TCP connection asks, and what it sends each time.
const PERIOD: Duration = Duration::from_millis(1);
const QUESTION: usize = 1_000;

/// What changes under load did.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) catalogue: PathBuf,
    /// Documents and catalogues that were put in force.
    pub(crate) changes: usize,
    /// The slowest of them, with the time that workers took to look at all flows.
    pub(crate) slowest: Duration,
    /// Packets in a second of the stream.
    pub(crate) rate: f64,
    /// Packets sent meanwhile, and those of them that were lost.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Packets lost of an equally long stream without changes.
    pub(crate) lost_before: u64,
    /// Flows that a change reset, or moved.
    pub(crate) flows_touched: u64,
    /// Whether the connection went on to the end.
    pub(crate) tcp_alive: bool,
    /// The longest that it waited for an answer.
    pub(crate) tcp_wait: Duration,
}

/// Replaces document and catalogue so many times each.
pub(crate) fn under_load(times: usize, trial: Duration) -> Report {
    let catalogue = catalogue();
    let text = fs::read_to_string(&catalogue).expect("the catalogue");
    let this_week: Value = serde_json::from_str(&text).expect("a catalogue");
    let node = node(&this_week, catalogue.clone());
    let site = node.start("node");
    let next_week = site.file("next-week.json");
    fs::write(&next_week, week_after(this_week).to_string()).expect("write");

    let link = Link::new(&site);
    let mut search = Search::around(stream(&link, SIZE - HEADERS, Pace::Flood, during(trial)).rate);
    (0..6).for_each(|_| search.step(&link, SIZE - HEADERS, trial));
    let pace = Pace::Bursts(search.best / 2.0);
    let ending = Ending::default();
    thread::scope(|scope| {
        let connection = Connection::open(&site);
        let connection = scope.spawn(|| connection.keep_asking(&ending));
        let guard = ending.guard();
        let start = Instant::now();
        let changes = scope.spawn(|| {
            // The stream is well under way before, and still after.
            thread::sleep(Duration::from_millis(200));
            let answers = apply_all(&site, &node, [&next_week, &catalogue], times);
            thread::sleep(Duration::from_millis(200));
            answers
        });
        let outcome = stream(&link, SIZE - HEADERS, pace, |_| !changes.is_finished());
        let answers = changes.join().expect("the changes");
        let before = stream(&link, SIZE - HEADERS, pace, during(start.elapsed()));
        drop(guard);
        let (tcp_alive, tcp_wait) = connection.join().expect("the connection");
        Report {
            catalogue: catalogue.clone(),
            changes: answers.len(),
            slowest: answers.iter().map(|(took, _)| *took).max().unwrap_or_default(),
            rate: outcome.rate,
            sent: outcome.sent,
            lost: outcome.lost(),
            lost_before: before.lost(),
            flows_touched: answers.iter().map(|(_, answer)| answer.flows.reset + answer.flows.moved).sum(),
            tcp_alive,
            tcp_wait,
        }
    })
}

/// Puts documents and catalogues in force in turn; each with the time until it was done.
fn apply_all(site: &Site, node: &Node, catalogues: [&PathBuf; 2], times: usize) -> Vec<(Duration, DocumentAnswer)> {
    let client = site.client();
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let timed = |target: &str, body: String| {
        let start = Instant::now();
        let answer = client.put::<DocumentAnswer>(target, body).expect("a change");
        (start.elapsed(), answer)
    };
    let mut answers = Vec::new();
    for turn in 0..times {
        let mut changed = node.clone();
        if turn % 2 == 0 {
            changed.tables += MORE_TABLES;
            changed.subnets += &subnet(SUBNETS);
        }
        let document = path(&site.file(DOCUMENT));
        let document = target(&["v1", "document"], &[("path", &document), ("dry_run", "false")]);
        answers.push(timed(&document, changed.document(&site.lab)));
        let catalogue = path(catalogues[turn % 2]);
        answers
            .push(timed(&target(&["v1", "catalogue"], &[("path", &catalogue), ("dry_run", "false")]), String::new()));
    }
    answers
}

/// Azure's catalogue, or the small one.
fn catalogue() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let azure = std::env::var_os("SIDESTEP_TAGS")
        .map_or_else(|| root.join("../shared/data/ServiceTags_Public_20251117.json"), PathBuf::from);
    if azure.exists() { azure } else { root.join("config/service-tags.json") }
}

/// The node of the other measures in a network of fifty subnets with endpoints for the services that the catalogue knows.
fn node(catalogue: &Value, path: PathBuf) -> Node {
    let endpoints: Vec<String> = SERVICES
        .iter()
        .filter(|(_, tag)| tags(catalogue).any(|value| value["name"] == *tag))
        .map(|(service, _)| format!("{{ service = \"{service}\" }}"))
        .collect();
    let subnets = (0..SUBNETS)
        .map(|number| subnet(number) + &format!("  service_endpoints = [{}]\n", endpoints.join(", ")))
        .collect();
    Node { subnets, catalogue: path, ..Node::default() }
}

fn subnet(number: usize) -> String {
    let third = number + 2;
    format!("\n  [[virtual_network.subnet]]\n  name = \"s{number}\"\n  address_prefixes = [\"10.1.{third}.0/24\"]\n")
}

/// What every other document has beside the rest.
const MORE_TABLES: &str = r#"
[[route_table]]
name = "more"
routes = [{ name = "own", address_prefix = "198.51.100.0/24", next_hop_type = "None" }]
"#;

fn tags(catalogue: &Value) -> impl Iterator<Item = &Value> {
    catalogue["values"].as_array().expect("tags").iter()
}

/// The catalogue as it might be a week later. The prefixes of the service that the traffic goes to stay.
fn week_after(mut catalogue: Value) -> Value {
    let service: IpAddr = SERVICE.parse().expect("an address");
    catalogue["changeNumber"] = json!(catalogue["changeNumber"].as_u64().unwrap_or_default() + 1);
    for (number, tag) in catalogue["values"].as_array_mut().expect("tags").iter_mut().enumerate() {
        let prefixes = tag["properties"]["addressPrefixes"].as_array_mut().expect("prefixes");
        let serves = |prefix: &Value| {
            prefix.as_str().and_then(|text| text.parse::<IpNet>().ok()).is_some_and(|prefix| prefix.contains(&service))
        };
        let mut place = 0;
        prefixes.retain(|prefix| {
            place += 1;
            place % 50 != 0 || serves(prefix)
        });
        prefixes.push(json!(format!("198.{}.{}.{}/32", 18 + number / 65_536, number / 256 % 256, number % 256)));
    }
    catalogue
}

/// A TCP connection that asks and is answered.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(site: &Site) -> Self {
        let listener = namespace::run(Some(&site.lab.name("right")), || TcpListener::bind(("0.0.0.0", PORT)));
        let listener = listener.expect("a namespace").expect("listen");
        let client = namespace::run(Some(&site.lab.name("left")), || TcpStream::connect((site.to, PORT)));
        let client = client.expect("a namespace").expect("connect");
        let (server, _) = listener.accept().expect("a connection");
        for end in [&client, &server] {
            end.set_nodelay(true).expect("no delay");
            end.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        }
        Self { client, server }
    }

    /// Asks until the end; whether every answer came, and the longest that one took.
    fn keep_asking(mut self, ending: &Ending) -> (bool, Duration) {
        thread::scope(|scope| {
            let server = &mut self.server;
            scope.spawn(move || {
                let mut bytes = [0; QUESTION];
                while server.read_exact(&mut bytes).and_then(|()| server.write_all(&bytes)).is_ok() {}
            });
            let mut longest = Duration::ZERO;
            let mut bytes = [0; QUESTION];
            while !ending.has_come() {
                let start = Instant::now();
                if self.client.write_all(&bytes).and_then(|()| self.client.read_exact(&mut bytes)).is_err() {
                    return (false, longest);
                }
                longest = longest.max(start.elapsed());
                thread::sleep(PERIOD);
            }
            // The server ends with it.
            (self.client.shutdown(Shutdown::Both).is_ok(), longest)
        })
    }
}
