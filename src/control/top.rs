//! What `sidestep top` asks each second: the fastest flows, and what kinds of paths, ports and reasons to drop count. Who
//! asks differs two answers; flows alone come with their differences, because nobody can be told a million of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::answers::{Counters, FlowAnswer};
use super::difference::flow_answer;
use super::ports::{Attachment, kind_name};
use super::refusal::Refusal;
use crate::path::kind::PathKind;
use crate::path::look::{By, Carried, Counted, Found, LISTED, Look, Wanted};
use crate::path::words::Words;
use crate::plan::explain::protocol_name;
use crate::snapshot::Snapshot;
use crate::worker::PortReport;

/// Flows that are told if the question does not say how many.
const DEFAULT: usize = 200;

/// Who looks again and again at the same time; one more, and who has not looked for longest is forgotten. Each may
/// remember some megabytes of every worker.
const WATCHERS: usize = 4;

/// Who has not looked for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The longest name of a watcher.
const NAME: usize = 64;

/// `GET /v1/top`
#[derive(Debug, Clone, Default, Deserialize)]
pub struct TopQuery {
    /// Who asks, in any words of its own: rates are those since it asked last. Without one it shares with all that have
    /// none.
    #[serde(default)]
    pub watcher: String,
    /// Flows to tell of, [`LISTED`] at most.
    pub limit: Option<usize>,
    /// Flows of one kind of path only: `endpoint`, `tunnel`, `internet`, `inside`.
    pub path: Option<String>,
    /// What flows are ordered by: `bytes` (default), `packets`, or `total`, which is bytes since they began.
    pub by: Option<String>,
    /// Flows only that have these words somewhere: a name of a port, an address, a protocol, a next hop type.
    #[serde(default)]
    pub filter: String,
}

impl TopQuery {
    /// What is wanted of a look; `ports` has the name of every port by its number.
    pub(crate) fn wanted<'a>(&self, ports: impl Iterator<Item = &'a str> + Clone) -> Result<Wanted, Refusal> {
        let malformed = |what: &str, got: &str, known: &str| {
            Refusal::Malformed(format!("{what} is `{got}`, and not one of {known}"))
        };
        if self.watcher.len() > NAME {
            return Err(Refusal::Malformed(format!("the watcher's name is longer than {NAME} bytes")));
        }
        let path = match self.path.as_deref() {
            None => None,
            Some(name) => Some(
                PathKind::named(name).ok_or_else(|| malformed("path", name, "endpoint, tunnel, internet, inside"))?,
            ),
        };
        let by = match self.by.as_deref() {
            None | Some("bytes") => By::Bytes,
            Some("packets") => By::Packets,
            Some("total") => By::Total,
            Some(other) => return Err(malformed("by", other, "bytes, packets, total")),
        };
        let words = Words::new(&self.filter, ports, protocol_name);
        let words = Arc::new(words.map_err(|error| Refusal::Malformed(error.to_string()))?);
        Ok(Wanted { listed: self.limit.unwrap_or(DEFAULT).min(LISTED), path, words, by, lines: false })
    }
}

/// The answer. Counts without another word are since the node started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopAnswer {
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Milliseconds since the node started: the differences of two answers by this are rates.
    pub uptime_ms: u64,
    /// Milliseconds since the same watcher's last look at the flows: what `carried` is of. None for its first one.
    pub interval_ms: Option<u64>,
    /// Flows that there are.
    pub flows_total: u64,
    /// Flows that are known: where there are more, paths and flows are those of a sample.
    pub flows_known: u64,
    /// What known flows carried, by kind of path: `endpoint`, `tunnel`, `internet`, `inside`.
    pub paths: BTreeMap<String, PathAnswer>,
    /// The flows that carried most, the most first.
    pub flows: Vec<TopFlow>,
    /// Packets received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Their bytes as received.
    pub forwarded_bytes: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Ports that have a device.
    pub ports: Vec<TopPort>,
}

/// What flows of one kind of path carried since the watcher's last look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathAnswer {
    /// Flows that are known.
    pub flows: u64,
    /// What they carried.
    pub carried: CarriedAnswer,
}

/// Packets and bytes since the watcher's last look, there and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedAnswer {
    /// Packets there and back.
    pub packets: [u64; 2],
    /// Bytes there and back.
    pub bytes: [u64; 2],
}

/// A flow and what it carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopFlow {
    /// The flow, with all that it carried since it began.
    #[serde(flatten)]
    pub flow: FlowAnswer,
    /// Its kind of path: `endpoint`, `tunnel`, `internet`, `inside`.
    pub path: String,
    /// What it carried since the watcher's last look.
    pub carried: CarriedAnswer,
}

/// A port and what went through it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopPort {
    /// Its name: `vm1`, `gateway`.
    pub name: String,
    /// What it is: `nic`, `gateway`, `internet`, `service`, `backbone`.
    pub kind: String,
    /// Packets that came in by it.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that went out by it.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

/// What watchers remember, by their names.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Watcher>>);

#[derive(Debug)]
struct Watcher {
    name: String,
    since: Instant,
    looks: Vec<Look>,
}

impl Watchers {
    /// What a watcher saw last; nothing for a new one, and while it is looking.
    pub(crate) fn take(&self, name: &str) -> Vec<Look> {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = watchers.iter().position(|watcher| watcher.name == name);
        place.map(|place| watchers.swap_remove(place).looks).unwrap_or_default()
    }

    /// Keeps what a watcher has seen.
    pub(crate) fn keep(&self, name: &str, looks: Vec<Look>) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.name != name && watcher.since.elapsed() < FORGOTTEN);
        if watchers.len() >= WATCHERS
            && let Some(oldest) = (0..watchers.len()).min_by_key(|place| watchers[*place].since)
        {
            watchers.swap_remove(oldest);
        }
        watchers.push(Watcher { name: name.to_owned(), since: Instant::now(), looks });
    }
}

/// What the looks of all workers found together, and what they remember.
pub(crate) fn found(mut looks: Vec<Look>, wanted: &Wanted) -> (Found, Vec<Look>) {
    let mut sum = Found::default();
    for look in &mut looks {
        sum.add(look.found(), wanted);
    }
    (sum, looks)
}

/// What was found, with names for numbers.
pub(crate) fn answer(
    found: &Found,
    snapshot: &Snapshot,
    attachments: &[Attachment],
    workers: &[Counters],
    reports: &[PortReport],
    uptime: Duration,
) -> TopAnswer {
    let flow = |Carried { flow, counted }: &Carried| TopFlow {
        flow: flow_answer(flow, snapshot),
        path: PathKind::of(flow.state.next_hop_type).name().to_owned(),
        carried: carried(counted),
    };
    let paths = PathKind::ALL.iter().zip(&found.paths);
    let port = |attachment: &Attachment| {
        let mut port = TopPort {
            name: attachment.name.clone(),
            kind: kind_name(attachment.kind).to_owned(),
            ..TopPort::default()
        };
        for report in reports.iter().filter(|report| report.port == attachment.port.0) {
            port.received += report.traffic.received;
            port.received_bytes += report.traffic.received_bytes;
            port.sent += report.traffic.sent;
            port.sent_bytes += report.traffic.sent_bytes;
        }
        port
    };
    let sum = |of: fn(&Counters) -> u64| workers.iter().map(of).sum();
    let mut dropped = BTreeMap::new();
    for (reason, count) in workers.iter().flat_map(|worker| &worker.dropped) {
        *dropped.entry(reason.clone()).or_default() += count;
    }
    TopAnswer {
        generation: snapshot.generation,
        uptime_ms: uptime.as_millis() as u64,
        interval_ms: found.elapsed,
        flows_total: found.flows,
        flows_known: found.known,
        paths: paths
            .map(|(kind, path)| {
                (kind.name().to_owned(), PathAnswer { flows: path.flows, carried: carried(&path.counted) })
            })
            .collect(),
        flows: found.fastest.iter().map(flow).collect(),
        received: sum(|worker| worker.received),
        received_bytes: sum(|worker| worker.received_bytes),
        forwarded: sum(|worker| worker.forwarded),
        forwarded_bytes: sum(|worker| worker.forwarded_bytes),
        dropped,
        ports: attachments.iter().map(port).collect(),
    }
}

fn carried(Counted { packets, bytes }: &Counted) -> CarriedAnswer {
    CarriedAnswer { packets: *packets, bytes: *bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_said_with_what_can() {
        let query = |path: &str, by: &str| TopQuery {
            path: Some(path.to_owned()),
            by: Some(by.to_owned()),
            limit: Some(usize::MAX),
            ..TopQuery::default()
        };
        let ports = || ["vm1"].into_iter();
        let good = query("tunnel", "packets").wanted(ports()).unwrap();
        assert_eq!((good.listed, good.path, good.by), (LISTED, Some(PathKind::Tunnel), By::Packets));
        let said = |query: TopQuery| query.wanted(ports()).unwrap_err().to_string();
        assert_eq!(said(query("tunel", "bytes")), "path is `tunel`, and not one of endpoint, tunnel, internet, inside");
        assert_eq!(said(query("tunnel", "bits")), "by is `bits`, and not one of bytes, packets, total");
        let long = TopQuery { watcher: "x".repeat(65), ..TopQuery::default() };
        assert_eq!(said(long), "the watcher's name is longer than 64 bytes");
        let many = TopQuery { filter: "a b c d e f g h i".to_owned(), ..TopQuery::default() };
        assert_eq!(said(many), "the filter has more than 8 words");
    }

    #[test]
    fn few_watchers_are_remembered_and_each_has_its_own_looks() {
        let watchers = Watchers::default();
        let looks = |count| (0..count).map(|_| Look::default()).collect::<Vec<_>>();
        for number in 1..=WATCHERS {
            watchers.keep(&number.to_string(), looks(number));
        }
        assert_eq!(watchers.take("2").len(), 2);
        assert!(watchers.take("2").is_empty(), "somebody is looking with it");
        watchers.keep("2", looks(2));
        watchers.keep("one more", looks(7));
        assert!(watchers.take("1").is_empty(), "the one that has not looked for longest is forgotten");
        assert_eq!(["2", "3", "4", "one more"].map(|name| watchers.take(name).len()), [2, 3, 4, 7]);
    }
}
