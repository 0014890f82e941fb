//! Traces and captures: packets that the workers see, streamed to whoever asked for them.
//!
//! Each is followed by one thread that may block. It never keeps a worker waiting: where the client reads slowly, packets
//! are lost and counted. It ends after as many packets as were asked for, when its time is over, when the client asks for
//! the end ([`ID_HEADER`]) or goes away, and with the node; then the workers are free of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::explain::has_ports;
use super::node::{Current, Node};
use super::refusal::Refusal;
use super::server::Failure;
use super::streamed::Streamed;
use crate::packet::parse::protocol;
use crate::plan::UnknownName;
use crate::plan::explain::{protocol_name, protocol_number};
use crate::snapshot::{PortId, PortKind, Snapshot};
use crate::telemetry::capture::{Capture, parse_what};
use crate::telemetry::trace::{Begun, End, TraceLine, TracedPacket, Why};
use crate::worker::{self, Filter, MOST_WATCHES, Seen, Wanted, Watching, What};

/// Most packets of a trace.
pub const MOST_TRACED: u64 = 1_000;

/// Packets of a trace that does not say how many.
const DEFAULT_TRACED: u64 = 10;

/// Seconds of a trace that does not say how long.
pub const DEFAULT_SECONDS: u64 = 30;

/// Longest trace, in seconds. A capture without a time has no end of its own.
pub const MOST_SECONDS: u64 = 24 * 3_600;

/// Bytes of each packet that a capture keeps if it does not say how many: all.
pub const LARGEST_SNAPLEN: usize = 65_575;

/// The header that names a trace or capture: `DELETE /v1/watches/ID` ends it, and what was seen before still comes.
pub const ID_HEADER: &str = "sidestep-watch";

/// How long a packet is waited for before other reasons to end are looked at.
const STEP: Duration = Duration::from_millis(50);

/// How long a client that reads nothing keeps the thread, in steps of [`PAUSE`], once the end has come.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the thread waits for a client that does not read.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes that are sent together, if there are more packets than one.
const CHUNK: usize = 64 << 10;

/// Chunks on their way to the client.
const CHUNKS: usize = 8;

/// Which packets, how many and how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowQuery {
    /// Where and from whom they come: NIC or another port, subnet, address, prefix.
    pub from: Option<String>,
    /// Whom they are sent to, or where they leave.
    pub to: Option<String>,
    /// Protocol.
    pub protocol: Option<String>,
    /// Destination port.
    pub port: Option<u16>,
    /// What goes the other way, too.
    #[serde(default)]
    pub both: bool,
    /// How many packets.
    pub count: Option<u64>,
    /// How many seconds.
    pub timeout: Option<u64>,
    /// Captures: what is written, as [`parse_what`] reads it.
    pub what: Option<String>,
    /// Captures: bytes of each packet.
    pub snaplen: Option<usize>,
}

impl FollowQuery {
    /// As the parts of a request's target.
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let text = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let number = |name, value: Option<u64>| value.map(|value| (name, value.to_string()));
        [
            text("from", &self.from),
            text("to", &self.to),
            text("protocol", &self.protocol),
            number("port", self.port.map(u64::from)),
            self.both.then(|| ("both", "true".to_owned())),
            number("count", self.count),
            number("timeout", self.timeout),
            text("what", &self.what),
            number("snaplen", self.snaplen.map(|snaplen| snaplen as u64)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Traces and captures that are followed.
#[derive(Debug, Default)]
pub(super) struct Follows {
    next: AtomicU64,
    ends: Mutex<BTreeMap<u64, Weak<Ending>>>,
}

/// Tells a follower that it is to end.
#[derive(Debug, Default)]
struct Ending {
    asked: AtomicBool,
    node: AtomicBool,
}

impl Follows {
    fn add(&self) -> (u64, Arc<Ending>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let ending = Arc::new(Ending::default());
        let mut ends = lock(&self.ends);
        ends.retain(|_, ending| ending.strong_count() > 0);
        ends.insert(id, Arc::downgrade(&ending));
        (id, ending)
    }

    /// Ends one; false where there is none of this number.
    fn end(&self, id: u64) -> bool {
        let ending = lock(&self.ends).get(&id).and_then(Weak::upgrade);
        ending.is_some_and(|ending| {
            ending.asked.store(true, Ordering::Relaxed);
            true
        })
    }

    /// Ends all: the node does.
    pub(super) fn end_all(&self) {
        for ending in lock(&self.ends).values().filter_map(Weak::upgrade) {
            ending.node.store(true, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is made of what is seen.
enum Form {
    Trace,
    Capture(Box<Capture>),
}

/// A trace or capture that has begun.
struct Following {
    id: u64,
    form: Form,
    watching: Watching,
    ending: Arc<Ending>,
    deadline: Option<Instant>,
    count: Option<u64>,
}

/// The routes of traces and captures.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/trace", get(trace))
        .route("/v1/capture", get(capture))
        .route("/v1/watches/{id}", delete(end))
}

async fn trace(
    State(node): State<Arc<Node>>,
    query: Result<Query<FollowQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let count = query.count.unwrap_or(DEFAULT_TRACED);
    if count == 0 || count > MOST_TRACED {
        let text = format!("{count} packets: a trace takes 1 to {MOST_TRACED}; `sidestep capture` has no such limit");
        return Err(Refusal::Malformed(text).into());
    }
    if query.what.is_some() || query.snaplen.is_some() {
        return Err(Refusal::Malformed("`what` and `snaplen` are of captures".to_owned()).into());
    }
    let seconds = query.timeout.unwrap_or(DEFAULT_SECONDS);
    follow(node, query, Form::Trace, Some(count), Some(seconds), "application/x-ndjson").await
}

async fn capture(
    State(node): State<Arc<Node>>,
    query: Result<Query<FollowQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let what = query.what.as_deref().map(parse_what).transpose().map_err(Refusal::Malformed)?.unwrap_or_default();
    let snaplen = query.snaplen.unwrap_or(LARGEST_SNAPLEN);
    if !(1..=LARGEST_SNAPLEN).contains(&snaplen) {
        let text = format!("{snaplen} bytes of each packet: a snaplen is from 1 to {LARGEST_SNAPLEN}");
        return Err(Refusal::Malformed(text).into());
    }
    if query.count == Some(0) {
        return Err(Refusal::Malformed("0 packets: a capture takes at least 1".to_owned()).into());
    }
    let (count, seconds) = (query.count, query.timeout);
    let form = Form::Capture(Box::new(Capture::new(what, snaplen)));
    follow(node, query, form, count, seconds, "application/x-pcapng").await
}

async fn end(State(node): State<Arc<Node>>, Path(id): Path<u64>) -> Result<StatusCode, Failure> {
    if node.follows.end(id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::Unknown(format!("there is no trace or capture {id}")).into())
    }
}

async fn follow(
    node: Arc<Node>,
    query: FollowQuery,
    form: Form,
    count: Option<u64>,
    seconds: Option<u64>,
    kind: &'static str,
) -> Result<Response, Failure> {
    if let Some(seconds) = seconds.filter(|seconds| !(1..=MOST_SECONDS).contains(seconds)) {
        return Err(Refusal::Malformed(format!("{seconds} s: a timeout is from 1 to {MOST_SECONDS} s")).into());
    }
    let wanted = Wanted {
        filter: filter(&node.current(), &query)?,
        what: match &form {
            Form::Trace => What::default(),
            Form::Capture(capture) => capture.what(),
        },
        stages: matches!(form, Form::Trace),
        made: matches!(form, Form::Capture(_)),
        snaplen: query.snaplen.unwrap_or(if matches!(form, Form::Trace) { 0 } else { LARGEST_SNAPLEN }),
        limit: count.filter(|_| matches!(form, Form::Trace)),
    };
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let asked = node.clone();
    let begin = move || asked.watch(wanted);
    let begun = tokio::task::spawn_blocking(begin).await;
    let watching = begun.map_err(|error| Refusal::Failed(format!("the node failed to answer: {error}")))??;
    let (id, ending) = node.follows.add();
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let following = Following { id, form, watching, ending, deadline, count };
    // What it is followed by ends with the client, with the node, and by itself.
    drop(tokio::task::spawn_blocking(move || following.run(&node, &sender)));
    let head = [(header::CONTENT_TYPE.as_str(), kind.to_owned()), (ID_HEADER, id.to_string())];
    Ok((head, Body::new(Streamed(receiver))).into_response())
}

/// Why nothing can be sent any more.
struct Gone;

impl Following {
    fn run(mut self, node: &Node, client: &mpsc::Sender<Bytes>) {
        let _ = self.tell(node, client);
        drop(self.watching);
        lock(&node.follows.ends).remove(&self.id);
    }

    fn tell(&mut self, node: &Node, client: &mpsc::Sender<Bytes>) -> Result<(), Gone> {
        let snapshot = node.current().snapshot.clone();
        let mut chunk = Vec::new();
        match &mut self.form {
            Form::Trace => line(&TraceLine::Begun(Begun { generation: snapshot.generation }), &mut chunk),
            Form::Capture(capture) => capture.begin(&snapshot, devices(node), &mut chunk),
        }
        self.send(client, chunk)?;
        let mut packets = 0;
        let why = loop {
            if self.count.is_some_and(|count| packets >= count) {
                break Why::Count;
            }
            if let Some(why) = self.is_over() {
                break why;
            }
            if client.is_closed() {
                return Err(Gone);
            }
            let left = self.deadline.map_or(STEP, |deadline| deadline.saturating_duration_since(Instant::now()));
            let Some(seen) = self.watching.next(left.min(STEP)) else { continue };
            let mut chunk = Vec::new();
            self.add(&seen, &mut packets, &mut chunk);
            self.add_waiting(&mut packets, &mut chunk);
            self.send(client, chunk)?;
        };
        self.watching.end();
        loop {
            let mut chunk = Vec::new();
            self.add_waiting(&mut packets, &mut chunk);
            if chunk.is_empty() {
                break;
            }
            self.send(client, chunk)?;
        }
        let (lost, unsent) = (self.watching.lost(), self.watching.unsent());
        let mut chunk = Vec::new();
        match &mut self.form {
            Form::Trace => {
                let lost = lost.iter().map(|(_, lost)| lost).sum();
                line(&TraceLine::End(End { why, packets, lost, unsent }), &mut chunk);
            }
            Form::Capture(capture) => capture.end(&lost, unsent, &node.current().snapshot, &mut chunk),
        }
        self.send(client, chunk)
    }

    fn is_over(&self) -> Option<Why> {
        let over = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if self.ending.node.load(Ordering::Relaxed) {
            Some(Why::Node)
        } else if self.ending.asked.load(Ordering::Relaxed) {
            Some(Why::Asked)
        } else if over {
            Some(Why::Timeout)
        } else {
            None
        }
    }

    /// What is there already, up to a chunk.
    fn add_waiting(&mut self, packets: &mut u64, chunk: &mut Vec<u8>) {
        while chunk.len() < CHUNK && self.count.is_none_or(|count| *packets < count) {
            let Some(seen) = self.watching.next(Duration::ZERO) else { break };
            self.add(&seen, packets, chunk);
        }
    }

    fn add(&mut self, seen: &Seen, packets: &mut u64, chunk: &mut Vec<u8>) {
        match &mut self.form {
            Form::Trace => {
                if let Some(packet) = TracedPacket::of(*packets + 1, seen) {
                    line(&TraceLine::Packet(Box::new(packet)), chunk);
                    *packets += 1;
                }
            }
            Form::Capture(capture) => {
                capture.add(seen, chunk);
                *packets = capture.packets();
            }
        }
    }

    /// Gives bytes to the connection. A client that does not read them is waited for until the end has come.
    fn send(&self, client: &mpsc::Sender<Bytes>, chunk: Vec<u8>) -> Result<(), Gone> {
        let mut chunk = Bytes::from(chunk);
        let mut over_since: Option<Instant> = None;
        while !chunk.is_empty() {
            match client.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Gone),
                Err(TrySendError::Full(back)) => chunk = back,
            }
            if self.is_over().is_some() {
                let since = *over_since.get_or_insert_with(Instant::now);
                if since.elapsed() > FAREWELL {
                    return Err(Gone);
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn line(line: &TraceLine, chunk: &mut Vec<u8>) {
    // Neither names nor numbers can fail to be JSON, and a vector takes everything.
    let _ = serde_json::to_writer(&mut *chunk, line);
    chunk.push(b'\n');
}

/// The ports that have a device.
fn devices(node: &Node) -> Vec<PortId> {
    node.current().attachments.iter().map(|attachment| attachment.port).collect()
}

impl Node {
    fn watch(&self, wanted: Wanted) -> Result<Watching, Refusal> {
        let ports = self.current().snapshot.ports.len();
        self.dataplane.watch(wanted, ports).ok_or_else(|| {
            Refusal::Conflict(format!(
                "{MOST_WATCHES} traces and captures run, as many as may be, or a worker does not answer: end one of them, \
                 or try again"
            ))
        })
    }

    /// Ends all traces and captures.
    pub(super) fn end_follows(&self) {
        self.follows.end_all();
    }
}

/// The filter of a question.
fn filter(current: &Current, query: &FollowQuery) -> Result<Filter, Refusal> {
    let end =
        |option, text: &Option<String>| text.as_deref().map(|text| self::end_of(current, option, text)).transpose();
    let (from, to) = (end("from", &query.from)?, end("to", &query.to)?);
    if let (Some(from), Some(to)) = (&from, &to)
        && from.port.is_none()
        && to.port.is_none()
        && !from.prefixes.iter().any(|from| to.prefixes.iter().any(|to| families(from) == families(to)))
    {
        return Err(Refusal::Malformed(format!(
            "no packet goes from {} to {}: they are of different address families",
            query.from.as_deref().unwrap_or_default(),
            query.to.as_deref().unwrap_or_default()
        )));
    }
    let protocol = match query.protocol.as_deref() {
        None => None,
        Some(name) => Some(protocol_number(name).ok_or_else(|| {
            Refusal::Malformed(format!(
                "--protocol: `{name}` is no protocol: write tcp, udp, icmp, another name or a number from 0 to 255"
            ))
        })?),
    };
    if let (Some(_), Some(protocol)) = (query.port, protocol)
        && !has_ports(protocol)
    {
        return Err(Refusal::Malformed(format!("{} has no ports: leave --port out", protocol_name(protocol))));
    }
    // ICMP stands for that of both families.
    let protocol = protocol.map(|number| if number == protocol::ICMPV6 { protocol::ICMP } else { number });
    Ok(Filter { from, to, protocol, port: query.port, both: query.both })
}

fn families(prefix: &IpNet) -> bool {
    prefix.addr().is_ipv4()
}

/// One end of a filter: an address, a prefix, a port or a subnet.
fn end_of(current: &Current, option: &str, text: &str) -> Result<worker::End, Refusal> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(worker::End { port: None, prefixes: vec![address.into()] });
    }
    if let Ok(prefix) = text.parse::<IpNet>() {
        return Ok(worker::End { port: None, prefixes: vec![prefix] });
    }
    let snapshot: &Snapshot = &current.snapshot;
    let ports = || snapshot.ports.iter().zip(0..).filter(|(port, _)| port.kind != PortKind::Vacant);
    if let Some((port, number)) = ports().find(|(port, _)| port.name.eq_ignore_ascii_case(text)) {
        let prefixes = port.addresses.iter().map(|address| IpNet::from(*address)).collect();
        return Ok(worker::End { port: Some(PortId(number)), prefixes });
    }
    let network = &current.network;
    if let Some(subnet) = network.find_subnet(text) {
        let declared = network.virtual_networks.get(subnet.virtual_network);
        let subnet = declared.and_then(|declared| declared.subnets.get(subnet.subnet));
        return Ok(worker::End {
            port: None,
            prefixes: subnet.map(|s| s.address_prefixes.clone()).unwrap_or_default(),
        });
    }
    if let Some((address, length)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        return Err(Refusal::Malformed(format!(
            "--{option}: `{text}` is no prefix: behind the slash belongs a number from 0 to {longest}, not `{length}`"
        )));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'/')) {
        return Err(Refusal::Malformed(format!(
            "--{option}: `{text}` is no address: write one as 10.1.1.4, or a prefix as 10.1.1.0/24"
        )));
    }
    let names: Vec<&str> = ports().map(|(port, _)| port.name.as_str()).collect();
    let unknown = UnknownName::new("NIC, port or subnet", text, names.iter().copied());
    Err(Refusal::Unknown(format!(
        "--{option}: {unknown} (there are {}; a subnet is NETWORK/SUBNET; or write an address or a prefix)",
        names.join(", ")
    )))
}
