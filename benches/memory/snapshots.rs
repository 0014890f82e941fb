//! How long a snapshot takes, of everything and after a week's changes of the service tags: fifty subnets, each with nine
//! endpoints and a route table of its own.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::Value;
use sidestep::model::network::Network;
use sidestep::plan::Plan;
use sidestep::snapshot::Snapshot;
use sidestep::tags::Catalogue;

use crate::Measure;
use crate::endpoints::network;
use crate::forwarding::processor_time;
use crate::report::{Report, Wanted};
use crate::tags::{catalogue_of_nine, document_of_nine};

/// Prefixes that come and prefixes that go in the made-up week.
const CHANGES: usize = 300;

/// Two weeks of a network.
pub(crate) struct Snapshots {
    catalogue: Arc<Catalogue>,
    distinct: Arc<Network>,
    shared: Arc<Network>,
    current: Arc<Snapshot>,
    /// The file of the week after, in a folder of its own.
    next: tempfile::NamedTempFile,
}

fn compile(network: &Arc<Network>, catalogue: &Arc<Catalogue>, previous: Option<&Snapshot>) -> Snapshot {
    let plan = Plan::new(network.clone(), catalogue.clone());
    plan.compile(previous.map_or(1, |previous| previous.generation + 1), previous).expect("the network compiles")
}

impl Snapshots {
    /// Writes the week after.
    pub(crate) fn new(report: &mut Report) -> Self {
        report.row("snapshot_build_ms", "snapshot of 50 subnets of 9 endpoints, ms", Wanted::AtMost(100.0));
        report.row("snapshot_build_shared_ms", "the same where they share a route table, ms", Wanted::Anything);
        report.row("weekly_diff_ms", "the same after a week's 600 changes of tags, ms", Wanted::AtMost(100.0));
        report.row("catalogue_load_ms", "reading the tags of that week, ms", Wanted::Anything);
        let catalogue = Arc::new(catalogue_of_nine());
        let next = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&next, week_after(document_of_nine()).to_string()).expect("write the week after");
        let after = Catalogue::load(next.path()).expect("the week after is good");
        let difference = catalogue.difference(&after);
        let came: usize = difference.changed.iter().map(|tag| tag.added_prefixes.len()).sum();
        let went: usize = difference.changed.iter().map(|tag| tag.removed_prefixes.len()).sum();
        assert_eq!((came, went), (CHANGES, CHANGES));
        let [distinct, shared] = [true, false].map(|distinct| Arc::new(network(&catalogue, distinct)));
        let current = Arc::new(compile(&distinct, &catalogue, None));
        Self { catalogue, distinct, shared, current, next }
    }
}

/// A document of service tags after a week: prefixes of tags that are drawn went, and as many others came.
fn week_after(mut document: Value) -> Value {
    let mut random = Rng::with_seed(12);
    let tags = document["values"].as_array_mut().expect("a list of tags");
    let mut known: BTreeSet<String> = tags.iter().flat_map(prefixes).cloned().collect();
    let before = known.clone();
    let (mut came, mut went) = (0, 0);
    while came < CHANGES || went < CHANGES {
        let index = random.usize(..tags.len());
        let list = tags[index]["properties"]["addressPrefixes"].as_array_mut().expect("a list of prefixes");
        let place = random.usize(..list.len().max(1));
        let is_old = list.get(place).and_then(Value::as_str).is_some_and(|prefix| before.contains(prefix));
        if went < CHANGES && list.len() > 1 && is_old {
            list.remove(place);
            went += 1;
        }
        let new = format!("{}/32", Ipv4Addr::from(random.u32(20 << 24..21 << 24)));
        if came < CHANGES && known.insert(new.clone()) {
            list.push(new.into());
            came += 1;
        }
    }
    document
}

fn prefixes(tag: &Value) -> impl Iterator<Item = &String> {
    let list = tag["properties"]["addressPrefixes"].as_array().expect("a list of prefixes");
    list.iter().map(|prefix| match prefix {
        Value::String(prefix) => prefix,
        other => panic!("{other} is no prefix"),
    })
}

/// Runs something and notes how many milliseconds it took; what it made ends outside of them.
fn time<T>(report: &mut Report, key: &str, run: impl FnOnce() -> T) -> T {
    let start = processor_time();
    let made = black_box(run());
    report.note(key, (processor_time() - start).as_secs_f64() * 1e3);
    made
}

impl Measure for Snapshots {
    fn round(&mut self, report: &mut Report) {
        let Self { catalogue, distinct, shared, current, next } = self;
        time(report, "snapshot_build_ms", || compile(distinct, catalogue, None));
        time(report, "snapshot_build_shared_ms", || compile(shared, catalogue, None));
        let after = time(report, "catalogue_load_ms", || Catalogue::load(next.path()).expect("the week after is good"));
        let after = Arc::new(after);
        time(report, "weekly_diff_ms", || compile(distinct, &after, Some(current)));
    }
}
