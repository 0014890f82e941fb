//! Measurements from inside a namespace, each by the tool that people would use by hand.

use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::DemoError;
use crate::lab::command::Tool;
use crate::lab::serve::Seen;

/// What `traceroute` prints for a hop that does not answer.
const SILENT: &str = "*";

/// Echo requests of one measurement, and the pause between them in seconds.
const PINGS: &str = "-c 20 -i 0.05";

/// How often a path is asked for until every hop has answered.
const TRACES: usize = 3;

/// The median round trip in milliseconds.
///
/// # Errors
/// No echo was answered.
pub(super) fn ping(netns: &str, to: IpAddr) -> Result<f64, DemoError> {
    // A lost echo alone makes ping fail, and is no reason to.
    let answer = Tool::new("ping").words("-n -W 2").words(PINGS).word(to.to_string()).inside(netns).ask()?;
    median(round_trips(&answer.stdout)).ok_or_else(|| DemoError::Probe {
        what: format!("ping {to}"),
        said: [answer.stdout, answer.stderr].concat().trim().to_owned(),
    })
}

/// The addresses on the way, the destination last if it was reached.
///
/// # Errors
/// `traceroute` failed.
pub(super) fn path(netns: &str, to: IpAddr) -> Result<Vec<String>, DemoError> {
    let mut hops = Vec::new();
    for _ in 0..TRACES {
        let tool = Tool::new("traceroute").words("-n -q 1 -w 1 -m 12").word(to.to_string());
        hops = parse_path(&tool.inside(netns).deadline(Duration::from_secs(20)).run()?);
        if !hops.iter().any(|hop| hop == SILENT) {
            break;
        }
    }
    Ok(hops)
}

/// TCP throughput in Gb/s, as an iperf3 server in the other namespace received it.
///
/// # Errors
/// `iperf3` failed.
pub(super) fn throughput(netns: &str, to: IpAddr, seconds: u32) -> Result<f64, DemoError> {
    let tool = Tool::new("iperf3").words(&format!("-J -t {seconds} -c {to}")).inside(netns);
    let answer = tool.deadline(Duration::from_secs(u64::from(seconds) + 15)).ask()?;
    parse_throughput(&answer.stdout).map_err(|said| DemoError::Probe {
        what: format!("iperf3 to {to}"),
        said: if said.is_empty() { answer.stderr.trim().to_owned() } else { said },
    })
}

/// HTTP status and answer of a web server of the lab, by its name over IPv4.
///
/// # Errors
/// There was no answer.
pub(super) fn http(netns: &str, host: &str) -> Result<(u16, Option<Seen>), DemoError> {
    let url = format!("http://{host}/");
    let tool = Tool::new("curl").words("-4 -sS --noproxy * --max-time 8 -w").word("\n%{http_code}").word(&url);
    let answer = tool.inside(netns).run()?;
    parse_http(&answer).ok_or_else(|| DemoError::Probe { what: format!("curl {url}"), said: answer.trim().to_owned() })
}

fn round_trips(text: &str) -> Vec<f64> {
    let time = |line: &str| line.split_once(" time=")?.1.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(time).collect()
}

/// The middle value, of an even number the mean of the middle two; none of none.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The second word of each line that begins with a hop's number.
fn parse_path(text: &str) -> Vec<String> {
    let hop = |line: &str| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u8>().ok()?;
        words.next().map(str::to_owned)
    };
    text.lines().filter_map(hop).collect()
}

fn parse_throughput(text: &str) -> Result<f64, String> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<String>,
        #[serde(default)]
        end: End,
    }
    #[derive(Deserialize, Default)]
    struct End {
        sum_received: Option<Sum>,
    }
    #[derive(Deserialize)]
    struct Sum {
        bits_per_second: f64,
    }
    let answer: Answer = serde_json::from_str(text).map_err(|_| text.trim().to_owned())?;
    match (answer.error, answer.end.sum_received) {
        (None, Some(sum)) => Ok(sum.bits_per_second / 1e9),
        (error, _) => Err(error.unwrap_or_else(|| "it received nothing".to_owned())),
    }
}

/// The body, and the status on a line after it.
fn parse_http(text: &str) -> Option<(u16, Option<Seen>)> {
    let (body, status) = text.rsplit_once('\n')?;
    Some((status.trim().parse().ok()?, serde_json::from_str(body).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_read_and_their_median_is_found() {
        let text = "PING 20.60.1.10 (20.60.1.10) 56(84) bytes of data.\n\
                    64 bytes from 20.60.1.10: icmp_seq=1 ttl=60 time=21.5 ms\n\
                    64 bytes from 20.60.1.10: icmp_seq=2 ttl=60 time=9 ms\n\
                    64 bytes from 20.60.1.10: icmp_seq=3 ttl=60 time=20.9 ms\n\n\
                    3 packets transmitted, 3 received, 0% packet loss, time 401ms\n";
        assert_eq!(round_trips(text), [21.5, 9.0, 20.9]);
        assert_eq!(median(round_trips(text)), Some(20.9));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_path_is_the_hops_addresses() {
        let text = "traceroute to 20.60.1.10 (20.60.1.10), 12 hops max, 60 byte packets\n \
                    1  10.1.1.1  0.173 ms\n 2  *\n12  20.60.1.10  0.341 ms\n";
        assert_eq!(parse_path(text), ["10.1.1.1", "*", "20.60.1.10"]);
        assert!(parse_path("").is_empty());
    }

    #[test]
    fn throughput_is_what_was_received() {
        let text =
            r#"{"start":{},"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":1.5e9}}}"#;
        assert_eq!(parse_throughput(text), Ok(1.5));
        let text = r#"{"start":{},"intervals":[],"end":{},"error":"unable to connect to server"}"#;
        assert_eq!(parse_throughput(text), Err("unable to connect to server".to_owned()));
        assert_eq!(parse_throughput("iperf3: error"), Err("iperf3: error".to_owned()));
    }

    #[test]
    fn the_web_servers_answer_is_read_with_its_status() {
        let seen = Seen { source: "10.1.1.4".parse().expect("address"), server: "contosodata".to_owned() };
        let text = "{\"source\":\"10.1.1.4\",\"server\":\"contosodata\"}\n\n200";
        assert_eq!(parse_http(text), Some((200, Some(seen))));
        assert_eq!(parse_http("there is only /\n\n404"), Some((404, None)));
        assert_eq!(parse_http("nothing"), None);
    }
}
