//! A lab and a node between real kernels: what `sidestep lab` makes, and ping, traceroute, iperf3 and curl through the forwarder.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

mod appliance;
mod building;
mod paths;
#[path = "../support/lab.rs"]
mod support;

use support::Lab;

/// The addresses that answer on the way to another, as traceroute shows them.
fn trace(lab: &Lab, host: &str, to: &str) -> Vec<String> {
    let out = lab.exec(host, &format!("traceroute -n -q 1 -w 2 -m 10 {to}"));
    out.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The median round trip in milliseconds.
fn ping(lab: &Lab, host: &str, to: &str) -> f64 {
    let out = lab.exec(host, &format!("ping -n -c 5 -i 0.05 -W 2 {to}"));
    let mut times: Vec<f64> =
        out.lines().filter_map(|line| line.split_once(" time=")?.1.split_whitespace().next()?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What a web server of the lab saw as the client's address.
fn source_seen(lab: &Lab, host: &str, to: &str) -> String {
    let url = if to.contains(':') { format!("http://[{to}]/") } else { format!("http://{to}/") };
    let out = lab.exec(host, &format!("curl -sS --fail --noproxy * --max-time 8 {url}"));
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    answer["source"].as_str().expect("source").to_owned()
}

/// TCP throughput in Gb/s as the server in the other namespace received it, `reverse` from there to here.
fn throughput(lab: &Lab, host: &str, to: &str, reverse: bool) -> f64 {
    let direction = if reverse { "-R" } else { "" };
    let out = lab.exec(host, &format!("iperf3 -J -t 1 {direction} -c {to}"));
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    answer["end"]["sum_received"]["bits_per_second"].as_f64().expect("sum") / 1e9
}
