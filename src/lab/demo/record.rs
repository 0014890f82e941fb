//! What is looked at all through a demo that ends in a page: the round trip of one `ping`, and the bytes that the service
//! and the on-premises site receive, a sample every 100 ms. The demo itself is the same with and without it.

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::document::Subject;
use super::report::rounded;
use super::stream::Echo;
use super::{DemoError, Stage};
use crate::lab::process::ProcessId;
use crate::lab::state::Step;
use crate::port::namespace;

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(100);

/// What `ping` is asked for: a timestamp with every echo, ten of them a second until it is told to stop.
const PING: &str = "-n -D -i 0.1 -W 2";

/// How long `ping` may take to end, with the last echoes on their way.
const PING_END: Duration = Duration::from_secs(3);

/// What happened over time. Times are in seconds, and the order to switch is at 0.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub(super) struct Timeline {
    /// What the demo did when.
    pub(super) phases: Vec<Phase>,
    /// Echoes of the one ping, in the order in which they were sent.
    pub(super) pings: Vec<Ping>,
    /// What the service received.
    pub(super) service: Vec<Rate>,
    /// What the on-premises site received through the tunnel.
    pub(super) tunnel: Vec<Rate>,
    /// The datagrams to the service about the switch.
    pub(super) datagrams: Vec<Datagram>,
    /// Milliseconds from the order to switch until each application that heard its reset had an answer.
    pub(super) back_after_ms: Vec<f64>,
}

impl Timeline {
    /// What the service received past the tunnel: the rate of each of its samples, less what came through the tunnel in the same
    /// time.
    pub(super) fn past_tunnel(&self) -> Vec<Rate> {
        let mut begin = self.service.first().map_or(0.0, |first| first.at_s - SAMPLE.as_secs_f64());
        let mut past = Vec::with_capacity(self.service.len());
        for &Rate { at_s, gbps } in &self.service {
            let length = at_s - begin;
            let tunnel = if length > 0.0 { carried(&self.tunnel, begin, at_s) / length } else { 0.0 };
            past.push(Rate { at_s, gbps: (gbps - tunnel).max(0.0) });
            begin = at_s;
        }
        past
    }
}

/// What samples say was carried between two times, in Gbit.
fn carried(samples: &[Rate], from: f64, to: f64) -> f64 {
    let mut begin = samples.first().map_or(0.0, |first| first.at_s - SAMPLE.as_secs_f64());
    let mut sum = 0.0;
    for sample in samples {
        sum += sample.gbps * (sample.at_s.min(to) - begin.max(from)).max(0.0);
        begin = sample.at_s;
    }
    sum
}

/// A part of the demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Phase {
    pub(super) what: PhaseKind,
    pub(super) from_s: f64,
    pub(super) to_s: f64,
}

/// The kinds of parts that are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PhaseKind {
    /// As much TCP as goes.
    Throughput,
}

/// One echo of `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ping {
    /// When the answer came, or would have been due.
    pub(super) at_s: f64,
    /// The round trip, none if no answer came.
    pub(super) round_trip_ms: Option<f64>,
    /// The TTL that its answer had left, which tells how many hops it took.
    pub(super) ttl: Option<u8>,
}

/// The mean rate between the sample before and this one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) at_s: f64,
    pub(super) gbps: f64,
}

/// One datagram of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Datagram {
    /// When it was sent.
    pub(super) at_s: f64,
    /// When its echo was back, none if it did not come.
    pub(super) round_trip_ms: Option<f64>,
    /// The source that the service saw, none if it did not arrive.
    pub(super) source_seen: Option<IpAddr>,
}

/// What [`super::switch`] knows of the moment.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// When the order to switch was given.
    pub(super) at: Instant,
    /// When the stream to the service began, and its echoes.
    pub(super) stream_begin: Instant,
    pub(super) echoes: Vec<Echo>,
    /// Milliseconds until each application was back.
    pub(super) back_after_ms: Vec<f64>,
}

/// Takes samples until it is finished or dropped.
#[derive(Debug)]
pub(super) struct Recorder {
    begin: Instant,
    begin_of_day: SystemTime,
    stop: Arc<AtomicBool>,
    counters: Vec<JoinHandle<Vec<Sample>>>,
    ping: Option<Child>,
    echoes: Option<JoinHandle<String>>,
    phases: Vec<(PhaseKind, Instant, Instant)>,
}

/// What an interface had received at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    bytes: u64,
}

impl Recorder {
    /// Starts to look.
    ///
    /// # Errors
    /// `ping` or a thread cannot be started.
    pub(super) fn start(stage: &mut Stage, subject: &Subject) -> Result<Self, DemoError> {
        let failed =
            |error: io::Error| DemoError::Probe { what: "samples over time".to_owned(), said: error.to_string() };
        let mut recorder = Self {
            begin: Instant::now(),
            begin_of_day: SystemTime::now(),
            stop: Arc::default(),
            counters: Vec::new(),
            ping: None,
            echoes: None,
            phases: Vec::new(),
        };
        for (netns, interface) in [&subject.service_interface, &subject.tunnel_interface] {
            let (netns, interface, stop) = (netns.clone(), interface.clone(), Arc::clone(&recorder.stop));
            let thread = thread::Builder::new().name(format!("samples of {interface}"));
            recorder.counters.push(
                thread
                    .spawn(move || {
                        // A namespace that cannot be entered leaves the plot empty; the demo says why elsewhere.
                        namespace::run(Some(&netns), || sample(&interface, &stop)).unwrap_or_default()
                    })
                    .map_err(failed)?,
            );
        }
        let mut ping = stage.start_ping(&subject.vm_netns, subject.service_address, PING)?;
        recorder.echoes = ping.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut text = Vec::new();
                // What came before an error is still worth showing.
                let _ = pipe.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        recorder.ping = Some(ping);
        Ok(recorder)
    }

    /// Notes a part of the demo that began then and ends now.
    pub(super) fn phase(&mut self, what: PhaseKind, since: Instant) {
        self.phases.push((what, since, Instant::now()));
    }

    /// Stops looking and lays everything out over time.
    pub(super) fn finish(mut self, moment: &Moment) -> Timeline {
        self.stop.store(true, Ordering::Relaxed);
        let text = self.end_ping();
        let seconds = |at: Instant| since(moment.at, at);
        let switch = moment.at.saturating_duration_since(self.begin).as_secs_f64();
        let begin_of_day = self.begin_of_day.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut samples = self.counters.drain(..).map(|thread| {
            // A thread that panicked has said so on stderr.
            rates(&thread.join().unwrap_or_default(), seconds)
        });
        let (service, tunnel) = (samples.next().unwrap_or_default(), samples.next().unwrap_or_default());
        drop(samples);
        let phases = self.phases.iter().map(|&(what, from, to)| Phase {
            what,
            from_s: rounded(seconds(from), 3),
            to_s: rounded(seconds(to), 3),
        });
        let stream = seconds(moment.stream_begin);
        let datagrams = moment.echoes.iter().map(|echo| Datagram {
            at_s: rounded(stream + echo.sent.as_secs_f64(), 6),
            round_trip_ms: echo.round_trip.map(|time| rounded(time.as_secs_f64() * 1e3, 3)),
            source_seen: echo.source_seen,
        });
        Timeline {
            phases: phases.collect(),
            pings: echoes(&text, begin_of_day + switch),
            service,
            tunnel,
            datagrams: datagrams.collect(),
            back_after_ms: moment.back_after_ms.iter().map(|&time| rounded(time, 1)).collect(),
        }
    }

    fn end_ping(&mut self) -> String {
        let Some(mut ping) = self.ping.take() else { return String::new() };
        // It says what it has not said yet and ends.
        let _ = kill_process(Pid::from_child(&ping), Signal::INT);
        let until = Instant::now() + PING_END;
        while matches!(ping.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        // It has ended, or does now.
        let _ = ping.kill();
        let _ = ping.wait();
        self.echoes.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end_ping();
        for thread in self.counters.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Stage {
    fn start_ping(&mut self, netns: &str, to: IpAddr, how: &str) -> Result<Child, DemoError> {
        let tool = crate::lab::command::Tool::new("ping").words(how).word(to.to_string()).inside(netns);
        let child = tool.spawn(Stdio::null(), Stdio::piped(), Stdio::null())?;
        if let Ok(id) = ProcessId::of(child.id()) {
            self.announce(Step::Process { what: "ping".to_owned(), id })?;
        }
        Ok(child)
    }
}

/// Seconds from the first to the second, negative if that was earlier.
fn since(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(time) => time.as_secs_f64(),
        None => -from.saturating_duration_since(to).as_secs_f64(),
    }
}

/// Reads how many bytes an interface of this thread's namespace has received, again and again.
fn sample(interface: &str, stop: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Some(bytes) =
            fs::read_to_string("/proc/thread-self/net/dev").ok().and_then(|text| received(&text, interface))
        {
            samples.push(Sample { at: Instant::now(), bytes });
        }
        due += SAMPLE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    samples
}

/// The bytes received by an interface, in the text of `/proc/net/dev`.
fn received(text: &str, interface: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn rates(samples: &[Sample], seconds: impl Fn(Instant) -> f64) -> Vec<Rate> {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    pairs
        .filter_map(|(before, now)| {
            let time = now.at.saturating_duration_since(before.at).as_secs_f64();
            let bytes = now.bytes.saturating_sub(before.bytes) as f64;
            (time > 0.0).then(|| Rate { at_s: rounded(seconds(now.at), 3), gbps: rounded(bytes * 8.0 / time / 1e9, 6) })
        })
        .collect()
}

/// The echoes in what `ping -D` said; numbers that are missing between others got no answer.
fn echoes(text: &str, switched_at: f64) -> Vec<Ping> {
    let parse = |line: &str| {
        let (at, rest) = line.strip_prefix('[')?.split_once(']')?;
        let number = rest.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse::<u64>().ok()?;
        let time = rest.split_once(" time=")?.1.split_whitespace().next()?.parse::<f64>().ok()?;
        let ttl = rest.split_once(" ttl=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u8>().ok());
        Some((number, at.parse::<f64>().ok()? - switched_at, time, ttl))
    };
    let mut found: Vec<_> = text.lines().filter_map(parse).collect();
    found.sort_by_key(|&(number, ..)| number);
    found.dedup_by_key(|&mut (number, ..)| number);
    let mut pings = Vec::new();
    let mut last: Option<(u64, f64)> = None;
    for (number, at, time, ttl) in found {
        if let Some((before, at_before)) = last {
            let step = (at - at_before) / (number - before) as f64;
            pings.extend((before + 1..number).map(|missing| Ping {
                at_s: rounded(at_before + step * (missing - before) as f64, 3),
                round_trip_ms: None,
                ttl: None,
            }));
        }
        pings.push(Ping { at_s: rounded(at, 3), round_trip_ms: Some(time), ttl });
        last = Some((number, at));
    }
    pings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_interface_are_those_it_received() {
        let text = "Inter-|   Receive                            |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1\n  \
                    eth0: 123456      10    0    0    0     0          0         0      777      12\n\
                    eth01:1 2 3\n";
        assert_eq!(received(text, "eth0"), Some(123_456));
        assert_eq!(received(text, "eth01"), Some(1));
        assert_eq!(received(text, "eth"), None);
    }

    #[test]
    fn rates_are_differences_by_the_time_that_really_passed() {
        let begin = Instant::now();
        let sample = |milliseconds, bytes| Sample { at: begin + Duration::from_millis(milliseconds), bytes };
        let samples = [sample(0, 0), sample(100, 12_500_000), sample(300, 12_500_000), sample(350, 0)];
        let switched = begin + Duration::from_millis(200);
        let rate = |at_s, gbps| Rate { at_s, gbps };
        assert_eq!(rates(&samples, |at| since(switched, at)), [rate(-0.1, 1.0), rate(0.1, 0.0), rate(0.15, 0.0)]);
    }

    /// Two threads sample at times of their own.
    #[test]
    fn what_came_through_the_tunnel_did_not_come_past_it() {
        let rates = |from: f64, gbps: &[f64]| -> Vec<Rate> {
            gbps.iter().zip(0_u32..).map(|(&gbps, tenth)| Rate { at_s: from + f64::from(tenth) * 0.1, gbps }).collect()
        };
        let past = |service: &[f64], tunnel: &[f64]| -> Vec<f64> {
            let timeline =
                Timeline { service: rates(0.0, service), tunnel: rates(-0.05, tunnel), ..Timeline::default() };
            timeline.past_tunnel().iter().map(|rate| rounded(rate.gbps, 6)).collect()
        };
        // A change in the middle of a sample is in both of the other.
        assert_eq!(past(&[0.2, 0.2, 0.1, 0.0], &[0.2, 0.2, 0.2, 0.0, 0.0]), [0.0, 0.0, 0.0, 0.0]);
        assert_eq!(past(&[0.2, 5.0, 5.0], &[0.2, 0.2, 0.0, 0.0]), [0.0, 4.9, 5.0]);
        // The tunnel carries what goes elsewhere, too.
        assert_eq!(past(&[0.1, 0.1], &[0.3, 0.3, 0.3]), [0.0, 0.0]);
        assert_eq!(past(&[1.0, 2.0], &[]), [1.0, 2.0]);
    }

    #[test]
    fn echoes_that_got_no_answer_stand_between_those_that_did() {
        let text = "PING 20.60.1.10 (20.60.1.10) 56(84) bytes of data.\n\
                    [1000.100000] 64 bytes from 20.60.1.10: icmp_seq=1 ttl=60 time=20.5 ms\n\
                    [1000.200000] 64 bytes from 20.60.1.10: icmp_seq=2 ttl=60 time=20.6 ms\n\
                    [1000.500000] 64 bytes from 20.60.1.10: icmp_seq=5 ttl=63 time=0.151 ms\n\
                    \n--- 20.60.1.10 ping statistics ---\n";
        let ping = |at_s, round_trip_ms, ttl| Ping { at_s, round_trip_ms, ttl };
        assert_eq!(
            echoes(text, 1000.25),
            [
                ping(-0.15, Some(20.5), Some(60)),
                ping(-0.05, Some(20.6), Some(60)),
                ping(0.05, None, None),
                ping(0.15, None, None),
                ping(0.25, Some(0.151), Some(63)),
            ]
        );
        assert!(echoes("", 0.0).is_empty());
    }
}
