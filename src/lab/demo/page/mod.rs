//! The page about a run, made for being shown to others: one HTML file that asks for nothing else. Its numbers are those of
//! the [`Report`] that the terminal shows, its plots those of the [`Timeline`].

mod chart;
mod picture;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use self::chart::{Chart, Note, Rug, Scale, Series, Shape};
use self::picture::Way;
use super::document::Subject;
use super::outcome::time;
use super::record::{PhaseKind, Rate, Timeline};
use super::report::{Measurement, Report, shown};
use super::{DemoError, Options};
use crate::lab::command::Tool;
use crate::model::network::{IoMode, Link};
use crate::path::kind::PathKind;
use crate::snapshot::NextHopType;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How long before and after the switch its close-up shows, in milliseconds; longer if applications took longer.
const CLOSE: f64 = 200.0;

/// The file that a page goes to. It is opened before the demo begins, and keeps what it has until there is a page; one
/// that did not exist is removed if there never is.
#[derive(Debug)]
pub(super) struct PageFile {
    path: PathBuf,
    file: File,
    unwritten: bool,
}

impl PageFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`DemoError::File`]
    pub(super) fn open(path: &Path) -> Result<Self, DemoError> {
        let existed = path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|source| DemoError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, unwritten: !existed })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the page in it.
    ///
    /// # Errors
    /// [`DemoError::File`]
    pub(super) fn write(mut self, page: &str) -> Result<(), DemoError> {
        self.unwritten = false;
        let is_file = self.file.metadata().is_ok_and(|data| data.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(page.as_bytes())).and_then(|()| self.file.flush());
        written.map_err(|source| DemoError::File { path: self.path.clone(), source })
    }
}

impl Drop for PageFile {
    fn drop(&mut self) {
        if self.unwritten {
            // It is empty and ours; somebody else may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What ran, and with what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Setting {
    pub(super) nic: String,
    pub(super) private_address: String,
    pub(super) subnet: String,
    pub(super) public_address: String,
    /// The endpoint's service, and the resource of it.
    pub(super) service: String,
    pub(super) resource: String,
    pub(super) service_address: String,
    pub(super) web_host: String,
    /// What the tunnel is like, in words.
    pub(super) tunnel: String,
    /// Names and values for the table of what ran.
    pub(super) versions: Vec<(String, String)>,
    pub(super) document: String,
}

impl Setting {
    /// What is about to run.
    pub(super) fn of(options: &Options, subject: &Subject) -> Self {
        let line =
            |path: &str| fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let iperf3 = Tool::new("iperf3").words("--version").run().unwrap_or_default();
        let io = match options.io.unwrap_or(subject.network.io) {
            IoMode::Offload => "segmentation offload",
            IoMode::Plain => "one packet, one frame (plain)",
        };
        let tags = match &options.tags {
            Some(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            None => "the invented one that ships with Sidestep".to_owned(),
        };
        let versions = [
            (
                "Sidestep",
                format!(
                    "{} ({})",
                    env!("CARGO_PKG_VERSION"),
                    if cfg!(debug_assertions) { "debug build" } else { "release build" }
                ),
            ),
            ("Linux", line("/proc/sys/kernel/osrelease")),
            ("iperf3", iperf3.lines().next().unwrap_or("unknown").trim_start_matches("iperf ").to_owned()),
            (
                "Processors",
                format!("{processors}, {}; sender, forwarder and receiver share them", std::env::consts::ARCH),
            ),
            ("TUN devices", io.to_owned()),
            ("Service tags", tags),
            ("Run at", utc(SystemTime::now())),
        ];
        Self {
            nic: subject.nic.to_owned(),
            private_address: subject.private_address.to_string(),
            subnet: subject.subnet.to_owned(),
            public_address: subject.public_address.to_string(),
            service: subject.service.clone(),
            resource: subject.resource.to_owned(),
            service_address: subject.service_address.to_string(),
            web_host: subject.web_host.clone(),
            tunnel: subject.tunnel.map_or_else(|| "as fast as the machine".to_owned(), |link| describe(&link)),
            versions: versions.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            document: subject.document.clone(),
        }
    }
}

/// Everything that the page shows.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Page<'a> {
    pub(super) report: &'a Report,
    pub(super) timeline: &'a Timeline,
    pub(super) setting: &'a Setting,
    /// What is not as it should be.
    pub(super) failures: &'a [String],
}

impl Page<'_> {
    /// The page.
    pub(super) fn html(&self) -> String {
        let Self { report, setting, .. } = self;
        let [service, resource, subnet] =
            [&setting.service, &setting.resource, &setting.subnet].map(|name| escape(name));
        let (tunnel, endpoint) = (&report.forced_tunnel, &report.service_endpoint);
        let pictures: String =
            [(Way::Tunnel, tunnel, "Before: forced tunnel"), (Way::Endpoint, endpoint, "After: service endpoint")]
                .map(|(way, found, title)| {
                    format!(
                        "<div class=\"way-card {}\"><h3>{title}</h3><p>{}</p>{}</div>\n",
                        way.class(),
                        escape(&format!("{} hops, next hop type {}", found.path.len(), found.next_hop_type)),
                        picture::draw(setting, way, &shown(found.source_seen))
                    )
                })
                .concat();
        let charts = [self.throughput(), self.latency()].map(|chart| chart.html()).concat();
        format!(
            r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{resource}: from forced tunnel to service endpoint</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">Sidestep demo</p>
<h1>From forced tunnel to service endpoint</h1>
<p class="lead">A virtual machine talks to its storage account <b>{resource}</b>. At first every packet goes <b class="tunnel">through a
tunnel to the company’s own site</b> and on over the internet. Then, under traffic, the service endpoint of {service} is
enabled on the subnet {subnet}, and the same packets take <b class="endpoint">the short way over the backbone</b>.</p>
</header>
{failures}{figures}
<section>
<h2>What a service endpoint is</h2>
<div class="explain">
<p>Companies often let nothing leave their cloud networks on its own: a <b>forced tunnel</b> carries all traffic to
their own site, where it is inspected and sent on to the internet. That holds for the cloud provider’s own services, too. Storage that
stands in the same region is then reached by a long detour, through a line that everyone shares.</p>
<p>A <b>service endpoint</b> is a switch on one subnet for one service. The provider publishes which addresses the service has; with
the endpoint, these addresses get a route of their own over the provider’s backbone. Everything else stays in the tunnel.</p>
<p>The service notices, too. Before, it sees the company’s public address, which any machine there may have. Afterwards it sees the
machine’s <b>private address</b> and knows its subnet, so its firewall can admit exactly that subnet and nobody else.</p>
<p>Sidestep forwards real packets on Linux the way Azure’s virtual networks do. What is shown here was measured with
ping, iperf3 and HTTP between network namespaces of one machine; the long tunnel is made long ({tunnel_text}).</p>
</div>
</section>
<section>
<h2>Both paths</h2>
<div class="ways">
{pictures}</div>
</section>
<section>
<h2>The whole run</h2>
<p>The endpoint was enabled at 0 s. As much TCP as goes was sent twice for three seconds, once before and once after; in between
there are the small requests and datagrams of the switch. Samples are 100 ms apart. Colours are what was measured: the
interface at the end of the tunnel, and at the service what the tunnel had not carried; of a ping the hops that its answer took.</p>
{charts}<p class="quiet after">Each line of the lower plot is ten times the one below it. While TCP fills the tunnel, a ping waits
with it in the queue; afterwards the processors of one machine are what is shared.</p>
</section>
<section>
<h2>The switch, close up</h2>
{close}</section>
<section>
<h2>All numbers</h2>
{numbers}</section>
<section>
<h2>What ran</h2>
{versions}<details><summary>The network of the demo, as its document says</summary>
<pre>{document}</pre></details>
</section>
<footer>Made by <code>sidestep demo --report</code>. The samples are in this file as JSON.</footer>
</main>
<div id="tip" hidden></div>
<script type="application/json" id="data">{data}</script>
<script>
{SCRIPT}</script>
</body>
</html>
"#,
            failures = self.show_failures(),
            figures = self.figures(),
            tunnel_text = escape(&setting.tunnel),
            close = self.close_up(),
            numbers = self.numbers(),
            versions = table(None, setting.versions.iter().map(|(name, value)| (name.as_str(), vec![escape(value)]))),
            document = escape(&setting.document),
            data = self.data(),
        )
    }

    /// Everything as JSON that can stand in a script element.
    fn data(&self) -> String {
        // Numbers, texts and lists can always be written.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned()).replace('<', "\\u003c")
    }

    fn show_failures(&self) -> String {
        if self.failures.is_empty() {
            return String::new();
        }
        let list: String = self.failures.iter().map(|failure| format!("<li>{}</li>", escape(failure))).collect();
        format!("<section class=\"failures\"><h2>Not as it should be in this run</h2><ul>{list}</ul></section>\n")
    }

    fn figures(&self) -> String {
        let Report { forced_tunnel: tunnel, service_endpoint: endpoint, switch } = self.report;
        let figure = |name: &str, before: &str, after: &str, text: &str| {
            let class = if before.ends_with("then") { "tunnel" } else { "quiet" };
            format!(
                "<div class=\"figure\"><h2>{name}</h2><span class=\"{class}\">{}</span><span class=\"endpoint\">{}</span><p>{}</p></div>\n",
                escape(before),
                escape(after),
                escape(text)
            )
        };
        let connections = &switch.connections;
        [
            "<div class=\"figures\">\n".to_owned(),
            figure(
                "Round trip, median of ping",
                &format!("{} ms, then", tunnel.ping_ms),
                &format!("{} ms", endpoint.ping_ms),
                &ratio(tunnel.ping_ms, endpoint.ping_ms, "shorter"),
            ),
            figure(
                "TCP throughput",
                &format!("{} Gb/s, then", tunnel.tcp_gbps),
                &format!("{} Gb/s", endpoint.tcp_gbps),
                &ratio(endpoint.tcp_gbps, tunnel.tcp_gbps, "more"),
            ),
            figure(
                "What the service sees",
                &format!("{}, then", shown(tunnel.source_seen)),
                &shown(endpoint.source_seen),
                "first the site’s public address, then the machine’s own",
            ),
            figure(
                "Interruption at the switch",
                "applications back after",
                &time(connections.back_after_median_ms),
                &format!(
                    "(median of {}; {} at worst). Web traffic, not switched: {} resets",
                    connections.open,
                    time(connections.back_after_worst_ms),
                    switch.web_connections_reset
                ),
            ),
            "</div>\n".to_owned(),
        ]
        .concat()
    }

    /// The time that plots of the whole run show.
    fn span(&self) -> (f64, f64) {
        let Timeline { pings, service, phases, .. } = self.timeline;
        let times = pings.iter().map(|ping| ping.at_s).chain(service.iter().map(|rate| rate.at_s));
        let times = times.chain(phases.iter().flat_map(|phase| [phase.from_s, phase.to_s]));
        let (from, to) = times.fold((-1.0_f64, 1.0_f64), |(from, to), at| (from.min(at), to.max(at)));
        (from, to)
    }

    fn throughput(&self) -> Chart {
        let Report { forced_tunnel: tunnel, service_endpoint: endpoint, .. } = self.report;
        let (from, to) = self.span();
        let (through, past) = (&self.timeline.tunnel, self.timeline.past_tunnel());
        let sampled = through.iter().chain(&self.timeline.service).map(|rate| rate.gbps);
        let highest = sampled.fold(endpoint.tcp_gbps.max(tunnel.tcp_gbps), f64::max);
        let series = |class, rates: &[Rate]| Series { class, shape: Shape::Area, points: visible(rates, highest) };
        let notes = self.timeline.phases.iter().filter(|phase| phase.what == PhaseKind::Throughput).map(|phase| {
            let found = if phase.to_s < 0.0 { tunnel } else { endpoint };
            let class = class_of_hop(&found.next_hop_type);
            Note { class, from: phase.from_s, to: phase.to_s, text: format!("{} Gb/s", found.tcp_gbps) }
        });
        Chart {
            name: "throughput",
            title: "What goes through the tunnel, and what reaches the service past it".to_owned(),
            summary: format!(
                "Throughput over time: {} Gb/s through the tunnel, {} Gb/s over the endpoint",
                tunnel.tcp_gbps, endpoint.tcp_gbps
            ),
            from,
            to,
            unit: "s",
            scale: Scale::up_to(highest),
            vertical_unit: "Gb/s",
            series: vec![series("tunnel", through), series("endpoint", &past)],
            notes: notes.collect(),
            rugs: Vec::new(),
            switch: "endpoint enabled",
        }
    }

    fn latency(&self) -> Chart {
        let Report { forced_tunnel: tunnel, service_endpoint: endpoint, .. } = self.report;
        let (from, to) = self.span();
        // By how many hops the answer took: one that was under way at the switch may still come through the tunnel.
        let by_hops = |ttl: Option<u8>| {
            let hops = ttl.map(|ttl| usize::from(FIRST_TTL.saturating_sub(ttl)) + 1);
            class_of(hops, tunnel.path.len(), endpoint.path.len())
        };
        let answered = || {
            let pings = self.timeline.pings.iter();
            pings.filter_map(|ping| Some(((ping.at_s, ping.round_trip_ms?), by_hops(ping.ttl))))
        };
        let lost: Vec<_> =
            self.timeline.pings.iter().filter(|ping| ping.round_trip_ms.is_none()).map(|ping| ping.at_s).collect();
        let text = format!("{} without an answer", lost.len());
        let rugs = if lost.is_empty() { Vec::new() } else { vec![Rug { class: "quiet", at: lost, text }] };
        Chart {
            name: "latency",
            title: "Round trip of one ping, all through the run".to_owned(),
            summary: format!(
                "Round trip over time: {} ms through the tunnel, {} ms over the endpoint",
                tunnel.ping_ms, endpoint.ping_ms
            ),
            from,
            to,
            unit: "s",
            scale: Scale::around(answered().map(|((_, time), _)| time)),
            vertical_unit: "ms",
            series: dots(answered, ["tunnel", "endpoint", "quiet"]),
            notes: Vec::new(),
            rugs,
            switch: "endpoint enabled",
        }
    }

    fn close_up(&self) -> String {
        let Report { switch, .. } = self.report;
        let (connections, datagrams) = (&switch.connections, &switch.service_datagrams);
        let sent = || self.timeline.datagrams.iter();
        let by_source = |seen: Option<IpAddr>| {
            class_of(seen.map(Some), self.report.forced_tunnel.source_seen, self.report.service_endpoint.source_seen)
        };
        let answered =
            || sent().filter_map(|one| Some(((one.at_s * 1e3, one.round_trip_ms?), by_source(one.source_seen))));
        let lost: Vec<_> = sent().filter(|one| one.round_trip_ms.is_none()).map(|one| one.at_s * 1e3).collect();
        let text = format!(
            "Eight small applications ask again and again on open connections, and a stream of numbered datagrams, one each \
             millisecond, is echoed by the service. Sidestep resets the connections in both directions, so that \
             applications notice at once and connect again: {} of {} heard their reset, and half of them were back within {}. One \
             more was kept from hearing its reset, which is what all would go through without: it was back after {}, when its \
             timeout had passed. Of {} datagrams {} were lost on the way there, and {} echoes that were in the tunnel.",
            connections.reset,
            connections.open,
            time(connections.back_after_median_ms),
            time(switch.without_reset.back_after_ms),
            datagrams.sent,
            datagrams.lost,
            datagrams.echoes_lost,
        )
        .replacen("Eight", &count(connections.open), 1);
        let chart = Chart {
            name: "datagrams",
            title: "Round trip of each datagram, by when it was sent; the colour is that of the source that the service saw".to_owned(),
            summary: format!("Round trips about the switch; {} echoes lost", datagrams.echoes_lost),
            from: -CLOSE,
            to: CLOSE.max(connections.back_after_worst_ms * 1.25),
            unit: "ms",
            scale: Scale::around(answered().map(|((_, time), _)| time)),
            vertical_unit: "ms",
            series: dots(answered, ["fine tunnel", "fine endpoint", "fine quiet"]),
            notes: Vec::new(),
            rugs: vec![
                Rug { class: "quiet", at: lost, text: format!("{} lost", datagrams.lost + datagrams.echoes_lost) },
                Rug {
                    class: "endpoint",
                    at: self.timeline.back_after_ms.clone(),
                    text: "applications back".to_owned(),
                },
            ],
            switch: "endpoint enabled",
        };
        format!("<p>{}</p>\n{}", escape(&text), chart.html())
    }

    fn numbers(&self) -> String {
        let Report { forced_tunnel, service_endpoint, switch } = self.report;
        let row = |name: &'static str, value: &dyn Fn(&Measurement) -> String| {
            (name, [forced_tunnel, service_endpoint].map(|found| escape(&value(found)).replace('\n', "<br>")).to_vec())
        };
        let rows = [
            row("Next hop", &|found| found.next_hop_type.clone()),
            row("Source that the service sees", &|found| shown(found.source_seen)),
            row("Path", &|found| found.path.join("\n")),
            row("Ping", &|found| format!("{} ms", found.ping_ms)),
            row("TCP", &|found| format!("{} Gb/s", found.tcp_gbps)),
            row("HTTP status", &|found| found.http_status.to_string()),
            row("Source that an ordinary web site sees", &|found| shown(found.web_source_seen)),
        ];
        let comparison = table(Some(&["", "forced tunnel", "service endpoint"]), rows.into_iter());
        let (connections, unreset) = (&switch.connections, &switch.without_reset);
        let (service, web) = (&switch.service_datagrams, &switch.web_datagrams);
        let none = || "–".to_owned();
        let unreset_after = time(unreset.back_after_ms);
        let rows = [
            ("Connections open", vec![connections.open.to_string(), "1".to_owned(), "1".to_owned()]),
            (
                "Resets heard",
                vec![
                    connections.reset.to_string(),
                    unreset.reset.to_string(),
                    switch.web_connections_reset.to_string(),
                ],
            ),
            ("Back after, median", vec![time(connections.back_after_median_ms), unreset_after.clone(), none()]),
            ("Back after, worst", vec![time(connections.back_after_worst_ms), unreset_after, none()]),
            ("Datagrams sent", vec![service.sent.to_string(), none(), web.sent.to_string()]),
            (
                "Lost, echoes lost",
                vec![
                    format!("{}, {}", service.lost, service.echoes_lost),
                    none(),
                    format!("{}, {}", web.lost, web.echoes_lost),
                ],
            ),
            ("Blocked time there", vec![time(service.blocked_ms), none(), time(web.blocked_ms)]),
            ("Blocked time back", vec![time(service.echoes_blocked_ms), none(), time(web.echoes_blocked_ms)]),
        ];
        let header = ["the switch", "service", "service, reset withheld", "web site, not switched"];
        format!(
            "{comparison}<p>&nbsp;</p>{}<p class=\"quiet\">Blocked time is lost datagrams divided by the rate at which they were offered. \
                 The forwarder reset {} flows.</p>\n",
            table(Some(&header), rows.into_iter()),
            switch.flows_reset
        )
    }
}

/// The TTL that Linux sends an answer with.
const FIRST_TTL: u8 = 64;

/// How something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Tunnel,
    Endpoint,
    /// Not to be told.
    Unknown,
}

/// How something went that has a mark, by the marks of both paths as they were measured. Where these are the same, nothing can
/// have gone by the endpoint.
fn class_of<T: PartialEq>(mark: Option<T>, tunnel: T, endpoint: T) -> Went {
    match mark {
        Some(mark) if mark == tunnel => Went::Tunnel,
        Some(mark) if mark == endpoint => Went::Endpoint,
        _ => Went::Unknown,
    }
}

/// The class of the path that a type of next hop is of.
fn class_of_hop(next_hop_type: &str) -> &'static str {
    let known = NextHopType::ALL.into_iter().find(|known| known.name() == next_hop_type).map(PathKind::of);
    match known {
        Some(PathKind::Tunnel) => "tunnel",
        Some(PathKind::Endpoint) => "endpoint",
        _ => "quiet",
    }
}

/// Dots in the colour of how each went, by the classes for tunnel, endpoint and unknown.
fn dots<I: Iterator<Item = ((f64, f64), Went)>>(all: impl Fn() -> I, classes: [&'static str; 3]) -> Vec<Series> {
    let of = |went, class| {
        let points = all().filter(|(_, how)| *how == went).map(|(point, _)| point).collect();
        Series { class, shape: Shape::Dots, points }
    };
    let [tunnel, endpoint, unknown] = classes;
    vec![of(Went::Tunnel, tunnel), of(Went::Endpoint, endpoint), of(Went::Unknown, unknown)]
}

/// Samples that can be seen in a plot of this height, with their neighbours: what is left is a line along the axis.
fn visible(rates: &[Rate], highest: f64) -> Vec<(f64, f64)> {
    let is_high = |place: usize| rates.get(place).is_some_and(|rate| rate.gbps > highest / 200.0);
    let near = |place: usize| is_high(place) || is_high(place + 1) || place.checked_sub(1).is_some_and(is_high);
    rates.iter().enumerate().filter(|(place, _)| near(*place)).map(|(_, rate)| (rate.at_s, rate.gbps)).collect()
}

/// A table; its cells are HTML already.
fn table<'a>(header: Option<&[&str]>, rows: impl Iterator<Item = (&'a str, Vec<String>)>) -> String {
    let head = header.map_or_else(String::new, |names| {
        let cell = |name: &&str| {
            let class = match *name {
                "forced tunnel" => " class=\"tunnel\"",
                "service endpoint" => " class=\"endpoint\"",
                _ => "",
            };
            format!("<th scope=\"col\"{class}>{name}</th>")
        };
        format!("<thead><tr>{}</tr></thead>", names.iter().map(cell).collect::<String>())
    });
    let rows: String = rows
        .map(|(name, cells)| {
            let cells: String = cells.into_iter().map(|cell| format!("<td>{cell}</td>")).collect();
            format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
        })
        .collect();
    format!("<div class=\"scroll\"><table>{head}<tbody>\n{rows}</tbody></table></div>\n")
}

/// Text as it may stand anywhere in HTML, between quotes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// How many times as large the first is, as a sentence's end; nothing where that says nothing.
fn ratio(large: f64, small: f64, what: &str) -> String {
    let times = large / small;
    if !times.is_finite() || times < 1.0 {
        return "no better in this run".to_owned();
    }
    let times = if times < 10.0 { format!("{times:.1}") } else { format!("{times:.0}") };
    match what {
        "shorter" => format!("{times} times as fast"),
        _ => format!("{times} times as much"),
    }
}

/// A small number in words, to begin a sentence with.
fn count(number: usize) -> String {
    let words = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"];
    words.get(number).map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

fn describe(link: &Link) -> String {
    let delay = format!("{} ms each way", link.delay.as_secs_f64() * 1e3);
    match link.rate {
        Some(rate) => format!("{delay}, {} Mbit/s", rate as f64 / 1e6),
        None => delay,
    }
}

/// A time of day as people and machines read it.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days to civil: years begin in March, so that the odd day of a leap year is the last one.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests;
