//! Port scans: a rule list as a security group gives nmap the same answers as the same list in the kernel's nftables. Two
//! networks with the same addresses, the same servers, and either in their middle, are scanned side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::UdpSocket;

use sidestep::port::namespace;

use super::IO;
use super::support::{Lab, privileged_with};

/// A rule for both: inbound, in order, the first that matches decides.
struct Rule {
    allow: bool,
    /// `Tcp`, `Udp`, `Icmp` or `*`, as security groups have it.
    protocol: &'static str,
    source: Option<&'static str>,
    /// Ports and ranges, or none for all.
    ports: &'static [&'static str],
}

const fn rule(allow: bool, protocol: &'static str, ports: &'static [&'static str]) -> Rule {
    Rule { allow, protocol, source: None, ports }
}

const RULES: [Rule; 9] = [
    rule(false, "Tcp", &["8002", "8005"]),
    rule(true, "Tcp", &["22", "80", "8000-8009"]),
    rule(false, "Udp", &["5002"]),
    rule(true, "Udp", &["5000-5005"]),
    Rule { allow: true, protocol: "Tcp", source: Some("10.1.1.0/24"), ports: &["9000-9001"] },
    Rule { allow: true, protocol: "Tcp", source: Some("10.1.9.0/24"), ports: &["9100-9101"] },
    rule(true, "*", &["53"]),
    rule(true, "Icmp", &[]),
    rule(false, "*", &[]),
];

/// What is scanned: in each range allowed and denied ports, with a server and without.
const TCP_PORTS: &str = "21-23,53,80,8000-8006,9000-9001,9100-9101";
const UDP_PORTS: &str = "53,5000-5004,5999";

/// Where the target serves.
const TCP_SERVERS: [u16; 7] = [22, 23, 53, 8001, 8002, 9000, 9100];
const UDP_SERVERS: [u16; 4] = [53, 5001, 5002, 5999];

const SCANNER: &str = "10.1.1.4";
const TARGET: &str = "10.1.2.4";

impl Rule {
    fn in_security_group(&self, priority: usize) -> String {
        let access = if self.allow { "Allow" } else { "Deny" };
        let ports: Vec<_> = self.ports.iter().map(|port| format!("\"{port}\"")).collect();
        let ports = if ports.is_empty() { "\"*\"".to_owned() } else { ports.join(", ") };
        format!(
            "  {{ name = \"r{priority}\", priority = {priority}, direction = \"Inbound\", access = \"{access}\", protocol = \
             \"{}\", source_address_prefix = \"{}\", source_port_range = \"*\", destination_address_prefix = \"*\", \
             destination_port_ranges = [{ports}] }},\n",
            self.protocol,
            self.source.unwrap_or("*")
        )
    }

    fn in_nftables(&self) -> String {
        let source = self.source.map(|source| format!("ip saddr {source} ")).unwrap_or_default();
        let ports = self.ports.join(", ");
        let what = match (self.protocol, self.ports.is_empty()) {
            ("Tcp", false) => format!("tcp dport {{ {ports} }} "),
            ("Udp", false) => format!("udp dport {{ {ports} }} "),
            ("*", false) => format!("meta l4proto {{ tcp, udp }} th dport {{ {ports} }} "),
            ("Icmp", true) => "ip protocol icmp ".to_owned(),
            ("*", true) => String::new(),
            other => panic!("{other:?} is in no rule"),
        };
        format!("\t\t{source}{what}{}\n", if self.allow { "accept" } else { "drop" })
    }
}

fn document(rules: &[Rule]) -> String {
    let mut text = String::from(
        r#"
location = "westeurope"

[[virtual_network]]
name = "contoso"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "scanner"
  address_prefixes = ["10.1.1.0/24"]

  [[virtual_network.subnet]]
  name = "target"
  address_prefixes = ["10.1.2.0/24"]
  network_security_group = "rules"

[[nic]]
name = "scanner1"
subnet = "contoso/scanner"
private_addresses = ["10.1.1.4"]
device = { tun = "eth0", netns = "scanner" }

[[nic]]
name = "target1"
subnet = "contoso/target"
private_addresses = ["10.1.2.4"]
device = { tun = "eth0", netns = "target" }

# The other network, with the kernel in its middle: hosts without the node.
[lab]
  [[lab.host]]
  netns = "kernel-scanner"
  [[lab.host]]
  netns = "kernel-router"
  [[lab.host]]
  netns = "kernel-target"

[[network_security_group]]
name = "rules"
security_rules = [
"#,
    );
    for (number, rule) in rules.iter().enumerate() {
        text.push_str(&rule.in_security_group(100 + number));
    }
    text.push_str("]\n");
    text
}

/// Connects the hosts of the other network, with the rules in its router.
fn connect(lab: &Lab, rules: &[Rule]) {
    for (host, address, gateway) in [("kernel-scanner", SCANNER, "10.1.1.1"), ("kernel-target", TARGET, "10.1.2.1")] {
        let far = format!("to-{}", host.trim_start_matches("kernel-"));
        lab.exec("kernel-router", &format!("ip link add {far} type veth peer name eth0 netns {}", lab.netns(host)));
        lab.exec("kernel-router", &format!("ip address add {gateway}/24 dev {far}"));
        lab.exec("kernel-router", &format!("ip link set {far} up"));
        lab.exec(host, &format!("ip address add {address}/24 dev eth0"));
        lab.exec(host, "ip link set eth0 up");
        lab.exec(host, &format!("ip route add default via {gateway}"));
    }
    let mut text = String::from(
        "table ip rules {\n\tchain forward {\n\t\ttype filter hook forward priority filter\n\t\toifname != \"to-target\" \
         accept\n\t\tct state established,related accept\n",
    );
    for rule in rules {
        text.push_str(&rule.in_nftables());
    }
    text.push_str("\t}\n}\n");
    let file = lab.folder().join("rules.nft");
    std::fs::write(&file, text).expect("write");
    lab.exec("kernel-router", &format!("nft -f {}", file.display()));
}

/// The target's servers. Those of UDP send back what they get.
fn serve(lab: &Lab, host: &str) {
    namespace::run(Some(&lab.netns(host)), || {
        for port in UDP_SERVERS {
            let socket = UdpSocket::bind(("0.0.0.0", port)).expect("bind");
            // Ends with the tests.
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _nobody_listens = socket.send_to(&buffer[..length], from);
                }
            });
        }
        for port in TCP_SERVERS {
            let listener = std::net::TcpListener::bind(("0.0.0.0", port)).expect("bind");
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
    })
    .expect("a namespace");
}

/// What nmap says of each port: its state and why it thinks so. For a scan without ports, of the host.
fn scan(lab: &Lab, host: &str, options: &str) -> BTreeMap<String, String> {
    let line =
        format!("nmap -n --send-ip --disable-arp-ping -T4 --max-retries 2 --host-timeout 60s -oX - {options} {TARGET}");
    let text = lab.exec(host, &line);
    let attribute = |text: &str, name: &str| -> Option<String> {
        Some(text.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0.to_owned())
    };
    let mut found = BTreeMap::new();
    for port in text.split("<port ").skip(1) {
        let port = format!(" {}", port.split_once("</port>").expect("an end").0);
        let key = format!(
            "{} {:>5}",
            attribute(&port, "protocol").expect("a protocol"),
            attribute(&port, "portid").expect("a port")
        );
        let state = format!(
            "{} {}",
            attribute(&port, "state").expect("a state"),
            attribute(&port, "reason").expect("a reason")
        );
        found.insert(key, state);
    }
    assert!(!text.contains("<extraports"), "nmap keeps ports to itself: {text}");
    if found.is_empty() {
        let status = text
            .split_once("<status ")
            .map_or_else(|| "down".to_owned(), |(_, rest)| attribute(&format!(" {rest}"), "state").expect("a state"));
        found.insert("host".to_owned(), status);
    }
    found
}

/// Scans both networks and compares; gives what was found.
#[track_caller]
fn compare(lab: &Lab, options: &str) -> BTreeMap<String, String> {
    let (sidestep, kernel) = std::thread::scope(|scope| {
        let other = scope.spawn(|| scan(lab, "kernel-scanner", options));
        (scan(lab, "scanner", options), other.join().expect("the other scan"))
    });
    let mut differences = String::new();
    for (port, state) in &kernel {
        let found = sidestep.get(port).map_or("nothing", String::as_str);
        if found != state {
            let _ = writeln!(differences, "{port}: kernel {state}, sidestep {found}");
        }
    }
    assert!(differences.is_empty() && sidestep.len() == kernel.len(), "nmap {options}:\n{differences}");
    kernel
}

/// How many ports have a state.
fn count(found: &BTreeMap<String, String>, state: &str) -> usize {
    found.values().filter(|value| value.split(' ').next() == Some(state)).count()
}

fn on_both_networks(test: &str, rules: &[Rule], run: impl Fn(&Lab)) {
    if !privileged_with(&["nmap"]) {
        return;
    }
    for io in IO {
        let mut lab = Lab::up(&format!("scan-{test}-{io}"), &document(rules));
        connect(&lab, rules);
        lab.start_node(&["--io", io]);
        for host in ["target", "kernel-target"] {
            serve(&lab, host);
        }
        run(&lab);
        lab.accounted();
        lab.stop_node();
    }
}

#[test]
fn syn_scans_get_the_answers_of_nftables() {
    on_both_networks("syn", &RULES, |lab| {
        let found = compare(lab, &format!("-Pn -sS -p {TCP_PORTS}"));
        assert_eq!((count(&found, "open"), count(&found, "closed"), count(&found, "filtered")), (4, 6, 6), "{found:?}");
    });
}

#[test]
fn connections_get_the_answers_of_nftables() {
    on_both_networks("connect", &RULES, |lab| {
        compare(lab, &format!("-Pn -sT -p {TCP_PORTS}"));
    });
}

#[test]
fn fin_scans_get_the_answers_of_nftables() {
    on_both_networks("fin", &RULES, |lab| {
        let found = compare(lab, &format!("-Pn -sF -p {TCP_PORTS}"));
        assert_eq!((count(&found, "open|filtered"), count(&found, "closed")), (10, 6), "{found:?}");
    });
}

#[test]
fn scans_in_fragments_get_the_answers_of_nftables() {
    on_both_networks("fragments", &RULES, |lab| {
        // The first fragment has all of the TCP header, the others have data.
        for size in [24, 40] {
            let found = compare(lab, &format!("-Pn -sS --mtu {size} --data-length 100 -p {TCP_PORTS}"));
            assert_eq!((count(&found, "open"), count(&found, "closed")), (4, 6), "{found:?}");
        }
        assert_eq!(lab.accounted().dropped.get("fragment_tiny"), None);
    });
}

/// Fragments that cut through a TCP header are for getting past filters: Sidestep drops them by name, before any rule.
/// nftables with connection tracking puts packets together first, and gives the same answers when it is told the same
/// before that.
#[test]
fn scans_in_tiny_fragments_get_the_answers_of_nftables_that_follows_rfc_1858() {
    const RFC_1858: &str = "table ip early {
        chain prerouting {
            type filter hook prerouting priority -450
            ip protocol tcp ip frag-off & 0x1fff == 1 drop
        }
    }";
    on_both_networks("tiny", &RULES, |lab| {
        let file = lab.folder().join("early.nft");
        std::fs::write(&file, RFC_1858).expect("write");
        lab.exec("kernel-router", &format!("nft -f {}", file.display()));
        let found = compare(lab, &format!("-Pn -sS -f --max-retries 0 -p {TCP_PORTS}"));
        assert_eq!(count(&found, "filtered"), found.len(), "{found:?}");
        assert!(lab.accounted().dropped["fragment_tiny"] >= 2 * found.len() as u64);
    });
}

#[test]
fn scans_with_wrong_checksums_get_the_answers_of_nftables() {
    on_both_networks("badsum", &RULES, |lab| {
        let found = compare(lab, &format!("-Pn -sS --badsum --max-retries 0 -p {TCP_PORTS}"));
        assert_eq!(count(&found, "filtered"), 16, "nobody repairs a checksum: {found:?}");
    });
}

#[test]
fn udp_scans_get_the_answers_of_nftables() {
    on_both_networks("udp", &RULES, |lab| {
        let found = compare(lab, &format!("-Pn -sU -p {UDP_PORTS}"));
        assert_eq!((count(&found, "open"), count(&found, "closed")), (2, 3), "{found:?}");
    });
}

#[test]
fn icmp_gets_the_answers_of_nftables() {
    for (test, rules, state) in [
        ("icmp", vec![rule(true, "Icmp", &[]), rule(false, "*", &[])], "up"),
        ("no-icmp", vec![rule(false, "Icmp", &[]), rule(true, "*", &[])], "down"),
    ] {
        on_both_networks(test, &rules, |lab| {
            for probe in ["-PE", "-PP"] {
                let found = compare(lab, &format!("-sn {probe}"));
                assert_eq!(found["host"], state, "{probe}");
            }
        });
    }
}
