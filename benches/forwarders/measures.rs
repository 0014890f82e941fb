//! What is measured of each forwarder, and how.
//!
//! Sizes are those of IP packets: 64 bytes are 36 of payload, 1,400 are 1,372.
//!
//! Two figures stand for the highest rate. `udp64` is the highest that loses at most a thousandth, found by trying rates;
//! `udp64_flood` is what arrives of as much as the sender can send. The first is the one that comes out alike: in three
//! rounds on two processors with little else to do, a node's ratios to the ceiling lay from 0.82 to 0.86 (1,400 bytes: 0.72
//! to 0.79), those of the flood from 0.83 to 1.25 (0.63 to 0.85), because there the kernel's scheduler decides how much time
//! the sender takes from the others. Where other programs run both may differ twofold from round to round, and `udp64_cost`
//! says most: processor time of the forwarder for each packet of a flood. Of the ceiling it lay within a tenth even then.
//! (These figures are of a node that passed each datagram on by itself.)

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::datagrams::{HEADERS, Link};
use crate::processor::{busy, spent};
use crate::report::median;
use crate::sites::Site;
use crate::stream::{Outcome, Pace, Search, during, stream};
use crate::table::Found;
use crate::window::{Sending, bulk};

/// Sizes of IP packets.
const SMALL: usize = 64;
const LARGE: usize = 1_400;

/// Percentages of the highest rate without loss at which delays are measured.
const LOADS: [u8; 3] = [10, 50, 90];

/// How much of a forwarder is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything.
    All,
    /// All but how long datagrams are on their way.
    Rates,
    /// Only what depends on how it waits.
    Waiting,
}

/// How long things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) rounds: usize,
    /// Seconds of a TCP connection.
    pub(crate) seconds: u32,
    /// Pings of a round.
    pub(crate) pings: u32,
    /// A moment in which all forwarders have a turn, and how many turns each has.
    pub(crate) turn: Duration,
    pub(crate) turns: usize,
    /// One rate that is tried, and how many are.
    pub(crate) trial: Duration,
    pub(crate) steps: usize,
    /// Idleness.
    pub(crate) idle: Duration,
    /// Documents, and as many catalogues, that are put in force under load.
    pub(crate) changes: usize,
}

impl Times {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        seconds: 4,
        pings: 1_200,
        turn: Duration::from_millis(100),
        turns: 9,
        trial: Duration::from_millis(250),
        steps: 7,
        idle: Duration::from_secs(1),
        changes: 10,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        seconds: 1,
        pings: 300,
        turn: Duration::from_millis(80),
        turns: 5,
        trial: Duration::from_millis(150),
        steps: 6,
        idle: Duration::from_millis(400),
        changes: 4,
    };
}

/// A part of the datagrams that are on their way the shortest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Least,
    P50,
    P99,
    P999,
}

impl Part {
    const ALL: [Self; 4] = [Self::Least, Self::P50, Self::P99, Self::P999];

    fn name(self) -> &'static str {
        match self {
            Self::Least => "min",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p999",
        }
    }

    fn of(self, outcome: &Outcome) -> f64 {
        outcome.delay(match self {
            Self::Least => 0.0,
            Self::P50 => 0.5,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        })
    }
}

/// One thing that is measured: `left` to `right` through a forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// Gigabits in a second of one connection, of eight.
    Tcp(u8),
    /// Processor seconds of a gigabyte, of one connection and of eight.
    Cpu(u8),
    /// Milliseconds: half the pings are faster.
    Ping,
    /// Thousand packets of a size in a second, of which at most a thousandth is lost.
    Udp(usize),
    /// Thousand packets of a size in a second that arrive of as many as the sender can send.
    UdpFlood(usize),
    /// Nanoseconds of a processor that the forwarder takes for a packet of a flood. Beside the rates, which sender, forwarder
    /// and receiver share two processors for, this says what a forwarder with a processor of its own would be capable of.
    UdpCost(usize),
    /// Gigabits in a second of large datagrams that are sent one by one, as many as are acknowledged.
    UdpBulk,
    /// The same with datagrams that leave the sender as super-packets.
    UdpSuper,
    /// Microseconds that small datagrams are on their way, at a percentage of the highest rate without loss.
    Delay(u8, Part),
    /// Processor seconds in a second in which nothing happens.
    Idle,
}

impl Measure {
    /// All, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let rates = [
            Self::Tcp(1),
            Self::Tcp(8),
            Self::Cpu(1),
            Self::Cpu(8),
            Self::Udp(SMALL),
            Self::UdpFlood(SMALL),
            Self::UdpCost(SMALL),
            Self::Udp(LARGE),
            Self::UdpFlood(LARGE),
            Self::UdpCost(LARGE),
            Self::UdpBulk,
            Self::UdpSuper,
            Self::Ping,
        ];
        let delays = LOADS.into_iter().flat_map(|load| Part::ALL.map(|part| Self::Delay(load, part)));
        rates.into_iter().chain(delays).chain([Self::Idle]).collect()
    }

    /// Its key.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tcp(flows) => format!("tcp{flows}"),
            Self::Cpu(flows) => format!("cpu{flows}"),
            Self::Ping => "ping_p50".to_owned(),
            Self::Udp(size) => format!("udp{size}"),
            Self::UdpFlood(size) => format!("udp{size}_flood"),
            Self::UdpCost(size) => format!("udp{size}_cost"),
            Self::UdpBulk => "udp_bulk_coalesced".to_owned(),
            Self::UdpSuper => "udp_uso".to_owned(),
            Self::Delay(load, part) => format!("latency_{}_us_{load}", part.name()),
            Self::Idle => "idle_cpu".to_owned(),
        }
    }

    /// What it is called in the table.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Tcp(flows) => format!("TCP x{flows}, Gb/s"),
            Self::Cpu(flows) => format!("TCP x{flows}, CPU s/GB"),
            Self::Ping => "ping p50, ms".to_owned(),
            Self::Udp(size) => format!("UDP {size} B, kpps"),
            Self::UdpFlood(size) => format!("UDP {size} B flood, kpps"),
            Self::UdpCost(size) => format!("UDP {size} B, CPU ns"),
            Self::UdpBulk => "UDP bulk, Gb/s".to_owned(),
            Self::UdpSuper => "UDP bulk USO, Gb/s".to_owned(),
            Self::Delay(load, part) => format!("delay {} at {load} %, µs", part.name()),
            Self::Idle => "idle, CPU s/s".to_owned(),
        }
    }

    /// Whether its value itself says something on another machine, beside its ratios.
    pub(crate) fn stands_alone(self) -> bool {
        matches!(self, Self::Delay(..) | Self::Idle)
    }
}

/// Measures every forwarder once. What takes long is done with one after the other; what takes a moment is done so many
/// times, all forwarders in turn, that a busy moment of the machine meets all alike.
pub(crate) fn measure(sites: &[(Site, Extent)], times: &Times, found: &mut Found) {
    let of = |extents: &[Extent]| -> Vec<&Site> {
        sites.iter().filter(|(_, extent)| extents.contains(extent)).map(|(site, _)| site).collect()
    };
    let rates = of(&[Extent::All, Extent::Rates]);
    rates.iter().for_each(|site| connections(site, times, found));
    for size in [SMALL, LARGE] {
        let links: Vec<Link> = rates.iter().map(|site| Link::new(site)).collect();
        let highest = highest_rates(&rates, &links, size, times, found);
        if size == SMALL {
            let highest = rates.iter().zip(highest).map(|(site, highest)| (site.name, highest)).collect();
            delays(&of(&[Extent::All]), &highest, times, found);
        }
    }
    for (measure, sending) in [(Measure::UdpBulk, Sending::Single), (Measure::UdpSuper, Sending::Super)] {
        bulk_datagrams(&rates, measure, sending, times, found);
    }
    sites.iter().for_each(|(site, _)| waiting(site, times, found));
}

/// Measures a forwarder that runs only while it is measured: TCP, ping, and what waiting costs.
pub(crate) fn measure_alone(site: &Site, times: &Times, found: &mut Found) {
    connections(site, times, found);
    waiting(site, times, found);
}

/// TCP.
fn connections(site: &Site, times: &Times, found: &mut Found) {
    for flows in [1, 8] {
        let before = busy();
        let arguments = ["-t", &times.seconds.to_string(), "-P", &flows.to_string()];
        let rate = site.lab.iperf("left", "right", site.to, &arguments);
        let bytes = rate / 8.0 * f64::from(times.seconds);
        found.note(Measure::Tcp(flows), site.name, rate / 1e9);
        found.note(Measure::Cpu(flows), site.name, (busy() - before) / (bytes / 1e9));
    }
}

/// What arrives of a flood, what a packet costs in it, and the highest rates without loss, which are given back.
fn highest_rates(sites: &[&Site], links: &[Link], size: usize, times: &Times, found: &mut Found) -> Vec<f64> {
    let payload = size - HEADERS;
    let mut floods = vec![Vec::new(); sites.len()];
    let mut costs = vec![Vec::new(); sites.len()];
    for _ in 0..times.turns {
        for (number, (site, link)) in sites.iter().zip(links).enumerate() {
            let before = site.process().map(|process| (spent(process), site.taken()));
            floods[number].push(stream(link, payload, Pace::Flood, during(times.turn)).rate);
            if let (Some((cost, taken)), Some(process)) = (before, site.process()) {
                costs[number].push((spent(process) - cost) * 1e9 / (site.taken() - taken) as f64);
            }
        }
    }
    let floods: Vec<f64> = floods.iter().map(|rates| median(rates)).collect();
    let mut searches: Vec<Search> = floods.iter().map(|flood| Search::around(*flood)).collect();
    for _ in 0..times.steps {
        for (search, link) in searches.iter_mut().zip(links) {
            search.step(link, payload, times.trial);
        }
    }
    for (number, site) in sites.iter().enumerate() {
        found.note(Measure::UdpFlood(size), site.name, floods[number] / 1e3);
        found.note(Measure::Udp(size), site.name, searches[number].best / 1e3);
        if !costs[number].is_empty() {
            found.note(Measure::UdpCost(size), site.name, median(&costs[number]));
        }
    }
    searches.iter().map(|search| search.best).collect()
}

/// How long small datagrams are on their way at parts of the forwarder's own highest rate: of each part of them the median
/// of all turns.
fn delays(sites: &[&Site], highest: &BTreeMap<&str, f64>, times: &Times, found: &mut Found) {
    let links: Vec<Link> = sites.iter().map(|site| Link::new(site)).collect();
    for load in LOADS {
        let mut turns = vec![Vec::new(); sites.len()];
        for _ in 0..times.turns {
            for ((site, link), turns) in sites.iter().zip(&links).zip(&mut turns) {
                let pace = Pace::Even(highest[site.name] * f64::from(load) / 100.0);
                let outcome = stream(link, SMALL - HEADERS, pace, during(times.trial));
                turns.push(Part::ALL.map(|part| part.of(&outcome)));
            }
        }
        for (site, turns) in sites.iter().zip(turns) {
            for (number, part) in Part::ALL.into_iter().enumerate() {
                let values: Vec<f64> = turns.iter().map(|turn| turn[number]).collect();
                found.note(Measure::Delay(load, part), site.name, median(&values));
            }
        }
    }
}

/// Large datagrams, as many as are acknowledged.
fn bulk_datagrams(sites: &[&Site], measure: Measure, sending: Sending, times: &Times, found: &mut Found) {
    let links: Vec<Link> = sites.iter().map(|site| Link::new(site)).collect();
    let before: Vec<_> = sites.iter().map(|site| site.counters()).collect();
    let mut rates = vec![Vec::new(); sites.len()];
    let mut super_packets = vec![0; sites.len()];
    for _ in 0..times.turns {
        for (number, (site, link)) in sites.iter().zip(&links).enumerate() {
            let goodput = bulk(link, LARGE - HEADERS, sending, times.turn);
            rates[number].push(goodput.rate / 1e9);
            super_packets[number] += goodput.super_packets;
            if goodput.stalls > 0 {
                eprintln!("{}, {}: waited in vain {} times", site.name, measure.title(), goodput.stalls);
            }
        }
    }
    for (number, site) in sites.iter().enumerate() {
        found.note(measure, site.name, median(&rates[number]));
        let (Sending::Super, Some(before), Some(after)) = (sending, &before[number], site.counters()) else { continue };
        let count = |port: &str, name: &str| after.ports[port][name] - before.ports[port][name];
        let (taken, sent) = (count("vm1", "super_packets_in"), count("data", "super_packets_out"));
        let (cut, all) = (count("data", "cut_in_software"), super_packets[number]);
        if taken < all || sent < all || cut > 0 {
            found.super_packets_whole = false;
            eprintln!("{}: of {all} super-packets {taken} came in and {sent} went out; {cut} were cut", site.name);
        }
    }
}

/// Ping, and what waiting costs.
fn waiting(site: &Site, times: &Times, found: &mut Found) {
    let told = site.lab.exec("left", &["ping", "-i", "0.002", "-c", &times.pings.to_string(), site.to]);
    let pings = told.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
    let pings: Vec<f64> = pings.collect();
    assert!(pings.len() * 10 > times.pings as usize * 9, "{} of {} pings were answered", pings.len(), times.pings);
    found.note(Measure::Ping, site.name, median(&pings));
    if let Some(process) = site.process() {
        let (before, start) = (spent(process), Instant::now());
        thread::sleep(times.idle);
        found.note(Measure::Idle, site.name, (spent(process) - before) / start.elapsed().as_secs_f64());
    }
}
