//! `sidestep demo` from its start to its end, and to ends before its time.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/lab.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{privileged, sidestep};

/// Demos have fixed names, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a demo makes, as far as it is there.
fn remains() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/run/netns", "/etc/netns"] {
        let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let names = names.map(|entry| entry.path().display().to_string());
        found.extend(names.filter(|name| name.contains("/sidestep-")));
    }
    found.extend(["/run/sidestep/lab/demo.json", "/run/sidestep/lab/demo.d"].map(str::to_owned));
    found.retain(|path| Path::new(path).exists());
    found
}

/// Starts a demo and waits until its progress says this.
fn start_until(text: &str) -> Child {
    let mut child = sidestep(&["demo"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let reached = lines.by_ref().any(|line| {
        seen.push(line.clone());
        line.contains(text)
    });
    assert!(reached, "no line says {text:?}: {seen:?}");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("signal");
}

fn check_report(output: &Output, service: Option<&str>) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (tunnel, endpoint) = (&report["forced_tunnel"], &report["service_endpoint"]);
    assert_eq!(tunnel["next_hop_type"], "VirtualNetworkGateway");
    assert_eq!(endpoint["next_hop_type"], "VirtualNetworkServiceEndpoint");
    assert_eq!((&tunnel["source_seen"], &endpoint["source_seen"]), (&"203.0.113.10".into(), &"10.1.1.4".into()));
    for column in [tunnel, endpoint] {
        assert_eq!(column["web_source_seen"], "203.0.113.10");
        assert_eq!(column["http_status"], 200);
        let path = column["path"].as_array().expect("path");
        assert_eq!(path[0], "10.1.1.1");
        if let Some(service) = service {
            assert_eq!(path.last().expect("hops"), service);
        }
    }
    assert_eq!(tunnel["path"].as_array().map(Vec::len), Some(5));
    assert_eq!(endpoint["path"].as_array().map(Vec::len), Some(2));
    let number = |value: &serde_json::Value| value.as_f64().expect("number");
    assert!(number(&tunnel["ping_ms"]) > 20.0, "the tunnel is 10 ms long each way");
    assert!(number(&endpoint["ping_ms"]) < number(&tunnel["ping_ms"]) / 2.0);
    assert!(number(&endpoint["tcp_gbps"]) > number(&tunnel["tcp_gbps"]));
    check_switch(&report["switch"], number(&tunnel["ping_ms"]));
    assert_eq!(remains(), Vec::<String>::new());
}

/// What the stream that moves may lose beyond what is on its way: the time that a busy machine takes to look at the flows
/// of a changed network, in a build without optimisation. A stream that begins anew by a timeout waits for seconds.
const MARGIN_MS: f64 = 150.0;

/// `round_trip` is that of the tunnel, in milliseconds.
fn check_switch(switch: &serde_json::Value, round_trip: f64) {
    let number = |value: &serde_json::Value| value.as_f64().expect("number");
    let (connections, unreset) = (&switch["connections"], &switch["without_reset"]);
    assert_eq!((&connections["open"], &connections["reset"]), (&8.into(), &8.into()));
    assert_eq!((&unreset["reset"], &unreset["timeouts"]), (&0.into(), &1.into()), "it heard nothing and waited");
    assert_eq!(switch["flows_reset"], 9, "the forwarder reset exactly the connections to the service");
    assert_eq!(switch["web_connections_reset"], 0);
    let (median, worst) = (number(&connections["back_after_median_ms"]), number(&connections["back_after_worst_ms"]));
    let (timeout, waited) = (number(&unreset["timeout_ms"]), number(&unreset["back_after_ms"]));
    assert!(0.0 < median && median <= worst && worst < timeout, "{connections}");
    // The last request may have been sent a round trip through the tunnel before the switch.
    assert!(timeout - 1000.0 < waited, "{unreset}");
    for stream in ["service_datagrams", "web_datagrams"].map(|name| &switch[name]) {
        let sent = number(&stream["sent"]);
        for (lost, blocked) in [("lost", "blocked_ms"), ("echoes_lost", "echoes_blocked_ms")] {
            let (lost, blocked) = (number(&stream[lost]), number(&stream[blocked]));
            // What was in the tunnel, there and back, at the switch.
            assert!(blocked <= 2.0 * round_trip + MARGIN_MS, "{stream}");
            let expected = lost / number(&stream["rate_per_second"]) * 1e3;
            assert!((blocked - expected).abs() <= 0.05 + expected / 1000.0, "{stream}");
        }
        assert!(sent >= 1250.0, "{stream}");
    }
    let web = &switch["web_datagrams"];
    assert_eq!((&web["lost"], &web["echoes_lost"]), (&0.into(), &0.into()), "the switch does not concern it");
}

/// The page shows what the terminal does, and what was sampled agrees with it.
fn check_page(page: &str, output: &Output) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(data["report"], report, "the same numbers");
    let (tunnel, endpoint) = (&report["forced_tunnel"], &report["service_endpoint"]);
    for (column, unit, name) in [(tunnel, "ms, then", "ping_ms"), (endpoint, "Gb/s</span>", "tcp_gbps")] {
        assert!(page.contains(&format!("{} {unit}", column[name])), "{name} is shown");
    }

    let number = |value: &serde_json::Value| value.as_f64().expect("number");
    let timeline = &data["timeline"];
    let of = |name: &str, value: &str| -> Vec<(f64, Option<f64>)> {
        let samples = timeline[name].as_array().expect("samples").iter();
        samples.map(|sample| (number(&sample["at_s"]), sample[value].as_f64())).collect()
    };
    // From the switch on a ping takes the short way, and before it none does.
    let pings = of("pings", "round_trip_ms");
    assert!(pings.len() > 60, "ten a second: {}", pings.len());
    for (at, time) in &pings {
        let Some(time) = time else { continue };
        assert!(*at > 0.0 || *time > 20.0, "{at} s: {time} ms");
    }
    let after: Vec<_> = pings.iter().filter(|(at, _)| *at > 0.5).filter_map(|(_, time)| *time).collect();
    let short = after.iter().filter(|time| **time < 20.0).count();
    assert!(short * 10 > after.len() * 9, "{short} of {}", after.len());
    // Which way each took is measured: by the hops of the answer, and by the source that the service saw.
    for ping in timeline["pings"].as_array().expect("pings").iter().filter(|ping| !ping["ttl"].is_null()) {
        let (at, hops) = (number(&ping["at_s"]), 65 - ping["ttl"].as_u64().expect("ttl"));
        let way = if at < 0.0 { tunnel } else { endpoint };
        let expected = way["path"].as_array().expect("path").len() as u64;
        assert!(hops == expected || (0.0..0.5).contains(&at), "{ping}");
    }
    let sources: std::collections::BTreeSet<_> = timeline["datagrams"]
        .as_array()
        .expect("datagrams")
        .iter()
        .filter_map(|datagram| datagram["source_seen"].as_str())
        .collect();
    assert_eq!(sources, ["10.1.1.4", "203.0.113.10"].into());
    for path in
        ["dots fine tunnel", "dots fine endpoint", "dots tunnel", "dots endpoint", "area tunnel", "area endpoint"]
    {
        assert!(page.contains(&format!("class=\"{path}\"")), "nothing is drawn as {path}");
    }
    let datagrams = of("datagrams", "round_trip_ms");
    let lost = datagrams.iter().filter(|(_, time)| time.is_none()).count() as f64;
    let service = &report["switch"]["service_datagrams"];
    assert_eq!(datagrams.len() as f64, number(&service["sent"]));
    assert_eq!(lost, number(&service["lost"]) + number(&service["echoes_lost"]));

    // What the service's interface counted while iperf3 ran is what iperf3 says, or a little more.
    let (rates, in_tunnel) = (of("service", "gbps"), of("tunnel", "gbps"));
    let mean = |rates: &[(f64, Option<f64>)], phase: &serde_json::Value| {
        let (from, to) = (number(&phase["from_s"]), number(&phase["to_s"]));
        let inside = rates.iter().filter(|(at, _)| (from..=to).contains(at)).filter_map(|(_, gbps)| *gbps);
        let (count, sum) = inside.fold((0, 0.0), |(count, sum), gbps| (count + 1, sum + gbps));
        sum / f64::from(count)
    };
    let phases = timeline["phases"].as_array().expect("phases");
    assert_eq!(phases.len(), 2);
    for (phase, column) in phases.iter().zip([tunnel, endpoint]) {
        let (sampled, told) = (mean(&rates, phase), number(&column["tcp_gbps"]));
        assert!((0.5..1.5).contains(&(sampled / told)), "{sampled} Gb/s sampled, {told} Gb/s told");
    }
    assert!(mean(&in_tunnel, &phases[0]) > 10.0 * mean(&in_tunnel, &phases[1]), "the tunnel is left");
}

#[test]
fn a_page_that_cannot_be_written_is_said_before_anything_is_built() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let page = folder.path().join("none/demo.html");
    let output = sidestep(&["demo", "--report"]).arg(&page).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("{}: No such file or directory", page.display())), "{said}");
    assert!(!said.contains("building the lab"), "{said}");
}

#[test]
fn the_demo_shows_both_paths() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let page = folder.path().join("demo.html");
    let output = sidestep(&["demo", "--json", "--report"]).arg(&page).output().expect("run");
    check_report(&output, Some("20.60.1.10"));
    check_page(&fs::read_to_string(&page).expect("page"), &output);
    let said = String::from_utf8_lossy(&output.stderr);
    let steps = [
        "building the lab",
        "forced tunnel: TCP",
        "enabling the endpoint",
        "waiting for the application that heard no reset",
        "removing the lab",
    ];
    for step in steps {
        assert!(said.contains(step), "{said}");
    }
}

#[test]
fn the_demo_runs_on_azures_own_tags() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let tags = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if !tags.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", tags.display());
        eprintln!("SKIPPED: the demo on Azure's own tags ({} is missing)", tags.display());
        return;
    }
    let mut command = sidestep(&["demo", "--json", "--io", "plain", "--tags"]);
    check_report(&command.arg(&tags).output().expect("run"), None);
}

#[test]
fn a_signal_ends_the_demo_and_nothing_stays() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let cases = [
        (Signal::INT, "building the lab", 130),
        (Signal::TERM, "starting the forwarder", 143),
        (Signal::HUP, "forced tunnel: TCP", 129),
        (Signal::INT, "enabling the endpoint", 130),
        (Signal::TERM, "waiting for the application that heard no reset", 143),
    ];
    for (number, moment, code) in cases {
        let mut child = start_until(moment);
        signal(&child, number);
        let status = child.wait().expect("wait");
        assert_eq!(status.code(), Some(code), "at {moment:?}");
        assert_eq!(remains(), Vec::<String>::new(), "at {moment:?}");
    }
}

#[test]
fn a_killed_demo_is_cleaned_up_behind() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let mut child = start_until("forced tunnel: TCP");
    assert!(!remains().is_empty());
    let second = sidestep(&["demo"]).output().expect("run");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&format!("the lab `demo` is in use by process {}", child.id())), "{said}");
    assert!(!remains().is_empty(), "the first one goes on");

    signal(&child, Signal::KILL);
    child.wait().expect("wait");
    let until = Instant::now() + Duration::from_secs(20);
    while !remains().is_empty() {
        assert!(Instant::now() < until, "{:?}", remains());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_demo_left_that_was_killed_with_its_guard_is_removed_by_hand() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let mut child = start_until("forced tunnel: TCP");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).expect("children");
    let is_guard =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("lab-guard"));
    let guard = children.split_whitespace().find(is_guard).expect("a guard").parse().expect("number");
    kill_process(Pid::from_raw(guard).expect("number"), Signal::KILL).expect("signal");
    signal(&child, Signal::KILL);
    child.wait().expect("wait");

    let status = sidestep(&["lab", "status", "--name", "demo", "--json"]).output().expect("run");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status[0]["state"], "interrupted");
    assert_eq!(status[0]["namespaces"].as_array().map(Vec::len), Some(4));
    let down = sidestep(&["lab", "down", "--name", "demo"]).output().expect("run");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(remains(), Vec::<String>::new());
}

#[test]
fn what_the_demo_needs_and_finds_taken_is_refused() {
    let _alone = alone();
    if !privileged() {
        return;
    }
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    ip(&["netns", "add", "sidestep-vm1"]);
    let output = sidestep(&["demo"]).output().expect("run");
    let left = remains();
    ip(&["netns", "delete", "sidestep-vm1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the network namespace `sidestep-vm1` exists already"), "{said}");
    assert_eq!(left, ["/run/netns/sidestep-vm1"]);
    assert!(output.stdout.is_empty());
}
