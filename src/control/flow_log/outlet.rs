//! Where records go that takes its time: files and collectors. Each has a thread of its own behind a bounded queue, so that
//! neither a slow disk nor a collector that does not answer holds up anything else.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use super::batch::Batch;
use super::milliseconds;
use crate::path::record::{Event, Record};
use crate::telemetry::ipfix::Exporter;
use crate::telemetry::vnet_flow_log::{FlowLogError, VnetFlowLog};

/// Records that wait: what the workers' queues of four hold, some seconds of many short connections.
const WAITING: usize = 1 << 17;

/// How many batches are taken before an output does what is due.
const TOGETHER: usize = 32;

/// How often a collector is looked after where no records come.
const LOOK: Duration = Duration::from_millis(200);

/// How often files that have become large are tried again at most.
const AGAIN: Duration = Duration::from_secs(1);

/// How often old files are looked for.
const DELETE: Duration = Duration::from_secs(3_600);

/// What became of records, as metrics tell it.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) records: AtomicU64,
    pub(super) unwritten: AtomicU64,
    pub(super) exported: AtomicU64,
    pub(super) not_exported: AtomicU64,
}

/// What an outlet is given.
pub(super) enum Given {
    Records(Arc<Batch>),
    /// Regions of virtual networks, by name.
    Regions(HashMap<String, String>),
}

/// What takes records on a thread of its own.
pub(super) trait Output: Send + 'static {
    /// Takes something in.
    fn take(&mut self, given: &Given);

    /// Does what is due, and tells when to look again.
    fn look(&mut self) -> Duration;

    /// Does everything that is left.
    fn end(&mut self);
}

/// The way to an output.
pub(super) struct Outlet {
    given: Sender<Given>,
    /// Records that wait.
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Outlet {
    /// Starts the thread of an output.
    ///
    /// # Errors
    /// When there is no thread.
    pub(super) fn start(name: &str, output: impl Output) -> io::Result<Self> {
        let (given, taken) = channel::unbounded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = waiting.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(output, &taken, &counted))?;
        Ok(Self { given, waiting, thread })
    }

    /// Gives records on, if there is room for them or will be until then.
    pub(super) fn give(&self, batch: &Arc<Batch>, until: Option<Instant>) -> bool {
        while self.waiting.load(Relaxed) + batch.len() > WAITING {
            if until.is_none_or(|until| Instant::now() >= until) || self.thread.is_finished() {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.waiting.fetch_add(batch.len(), Relaxed);
        self.given.send(Given::Records(batch.clone())).is_ok()
    }

    /// Tells where virtual networks are.
    pub(super) fn tell(&self, regions: HashMap<String, String>) {
        // An output that has failed needs none.
        let _ = self.given.send(Given::Regions(regions));
    }

    /// Lets it do what it has, and end.
    pub(super) fn close(self) -> Closing {
        let Self { given, waiting, thread } = self;
        drop(given);
        Closing { waiting, thread }
    }
}

/// An output that is given nothing more.
pub(super) struct Closing {
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Closing {
    /// Waits until everything is done, but no longer than until then: a disk or a collector that hangs keeps nobody else from
    /// ending.
    pub(super) fn end(self, until: Instant) {
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                let (output, waiting) = (self.thread.thread().name().unwrap_or_default(), self.waiting.load(Relaxed));
                tracing::error!(
                    output,
                    waiting,
                    "an output of the flow log is too slow; what it has is not waited for"
                );
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if self.thread.join().is_err() {
            tracing::error!("a thread of the flow log has failed");
        }
    }
}

fn run(mut output: impl Output, given: &Receiver<Given>, waiting: &AtomicUsize) {
    let mut pause = output.look();
    loop {
        match given.recv_timeout(pause) {
            Ok(first) => {
                // What has come with it is looked at together.
                for given in std::iter::once(first).chain(given.try_iter()).take(TOGETHER) {
                    output.take(&given);
                    if let Given::Records(batch) = given {
                        waiting.fetch_sub(batch.len(), Relaxed);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return output.end(),
        }
        pause = output.look();
    }
}

/// Files.
pub(super) struct Files {
    log: VnetFlowLog,
    interval: Duration,
    due: Instant,
    /// Before which nothing is tried again because there is much.
    again: Instant,
    delete: Instant,
    sums: Arc<Sums>,
    counted: u64,
}

impl Files {
    pub(super) fn new(log: VnetFlowLog, interval: Duration, sums: Arc<Sums>) -> Self {
        let now = Instant::now();
        Self { log, interval, due: now + interval, again: now, delete: now, sums, counted: 0 }
    }

    fn flush(&mut self) {
        let now = Instant::now();
        (self.due, self.again) = (now + self.interval, now + AGAIN);
        let result = self.log.flush(milliseconds(SystemTime::now()));
        self.count();
        if let Err(error) = result {
            let (waiting, unwritten) = (self.log.waiting(), self.log.unwritten());
            let cause = std::error::Error::source(&error);
            tracing::warn!(%error, cause, waiting, unwritten, "flow logs are not written");
        }
    }

    fn count(&mut self) {
        let unwritten = self.log.unwritten();
        self.sums.unwritten.fetch_add(unwritten - self.counted, Relaxed);
        self.counted = unwritten;
    }

    /// Whether a record may become tuples.
    pub(super) fn wants(record: &Record) -> bool {
        !matches!(record.event, Event::Reply | Event::Related | Event::Unsent(_))
    }
}

impl Output for Files {
    fn take(&mut self, given: &Given) {
        match given {
            Given::Records(batch) => batch.wanted(Self::wants).for_each(|(_, words)| self.log.add(words)),
            Given::Regions(regions) => self.log.add_regions(regions.clone()),
        }
        self.count();
    }

    fn look(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.due || self.log.is_large() && now >= self.again {
            self.flush();
        }
        if now >= self.delete {
            self.delete = now + DELETE;
            match self.log.delete_old(milliseconds(SystemTime::now())) {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "old flow logs are deleted"),
                Err(error) => tracing::warn!("{}", not_deleted(&error)),
            }
        }
        self.due.min(self.delete).saturating_duration_since(Instant::now())
    }

    fn end(&mut self) {
        self.flush();
        let waiting = self.log.waiting();
        if waiting > 0 {
            tracing::warn!(tuples = waiting, "the node ends before they are written to flow logs");
        }
        self.log.give_up();
        self.count();
    }
}

fn not_deleted(error: &FlowLogError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("old flow logs are not deleted: {}: {cause}", error.path.display())
}

/// A collector.
pub(super) struct Collector {
    exporter: Exporter,
    sums: Arc<Sums>,
}

impl Collector {
    pub(super) fn new(exporter: Exporter, sums: Arc<Sums>) -> Self {
        Self { exporter, sums }
    }

    /// Whether a record is told to collectors.
    pub(super) fn wants(record: &Record) -> bool {
        record.event != Event::Reply
    }

    fn count(&mut self) {
        let (sent, lost) = self.exporter.take_counts();
        self.sums.exported.fetch_add(sent, Relaxed);
        self.sums.not_exported.fetch_add(lost, Relaxed);
    }
}

impl Output for Collector {
    fn take(&mut self, given: &Given) {
        let Given::Records(batch) = given else { return };
        for (record, words) in batch.wanted(Self::wants) {
            self.exporter.add(words);
            self.exporter.add_exhausted(record, words.time);
        }
    }

    fn look(&mut self) -> Duration {
        self.exporter.flush();
        self.count();
        LOOK
    }

    fn end(&mut self) {
        self.exporter.finish();
        self.count();
    }
}
