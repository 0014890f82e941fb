//! Who may reach what between real kernels: security groups, endpoint policies and firewalls of services, with curl over
//! TLS whose certificates are verified. S1 to S10 and N1 are cases of the conformance table, which `tests/behaviour` has
//! without kernels.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

mod changes;
mod client;
mod denials;
mod hellos;
mod scan;
mod scenarios;
#[path = "../support/lab.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Lab, privileged};

/// The network that most tests change in one place.
const SECURED: &str = include_str!("../../config/secured.toml");

/// Its hosts.
const APP: &str = "secured-app";
const JUMPBOX: &str = "secured-jumpbox";

/// The firewall of its account `contosobackup`.
const FIREWALL: &str = r#"firewall = { default_action = "Deny", answering_port = 8403, virtual_network_rules = [{ subnet = "spoke/app" }] }"#;

/// Account of the policy, account that it does not list, and the account with the firewall.
const CONTOSO: &str = "contosodata.blob.core.windows.net";
const FABRIKAM: &str = "fabrikamdata.blob.core.windows.net";
const BACKUP: &str = "contosobackup.blob.core.windows.net";

/// How both kinds of devices are called.
const IO: [&str; 2] = ["offload", "plain"];

/// [`SECURED`] with one text replaced.
#[track_caller]
fn secured(from: &str, to: &str) -> String {
    assert_eq!(SECURED.matches(from).count(), 1, "`{from}` must be in the document once");
    SECURED.replace(from, to)
}

/// Runs a test on a lab with a node, for each kind of devices. Every packet is accounted for at the end.
#[track_caller]
fn on_both(test: &str, document: &str, run: impl Fn(&Lab)) {
    if !privileged() {
        return;
    }
    for io in IO {
        let mut lab = Lab::up(&format!("{test}-{io}"), document);
        lab.start_node(&["--io", io]);
        run(&lab);
        lab.accounted();
        lab.stop_node();
    }
}

/// What curl made of a request.
#[derive(Debug)]
struct Curl {
    /// Its exit code: 7 not connected, 35 not through the handshake, 56 reset under way.
    code: Option<i32>,
    /// The status of the answer, `000` without one.
    status: String,
    body: String,
    said: String,
    took: Duration,
}

impl Curl {
    /// The source that the server saw, of an answer that came in.
    #[track_caller]
    fn source(&self) -> String {
        assert_eq!(self.status, "200", "{self:?}");
        let answer: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        answer["source"].as_str().expect("a source").to_owned()
    }
}

/// Arguments of curl that are always the same.
fn curl_line(lab: &Lab, more: &str) -> String {
    let authority = lab.own_file("authority.pem");
    format!("curl -sS --noproxy * --max-time 20 --cacert {} -w |%{{http_code}} {more}", authority.display())
}

/// One request, with the certificate verified where it is HTTPS.
fn curl(lab: &Lab, host: &str, more: &str) -> Curl {
    let begin = Instant::now();
    let output = lab.output(host, &curl_line(lab, more));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('|').unwrap_or((&text, ""));
    Curl {
        code: output.status.code(),
        status: status.to_owned(),
        body: body.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begin.elapsed(),
    }
}

/// A request that the server's side ends at once, before there is an answer.
#[track_caller]
fn ended_at_once(lab: &Lab, host: &str, url: &str, codes: &[i32]) -> Curl {
    let curl = curl(lab, host, url);
    assert!(codes.contains(&curl.code.expect("an exit code")), "{host} {url}: {curl:?}");
    assert!(curl.took < Duration::from_secs(1), "{host} {url}: {curl:?}");
    curl
}
