//! The two paths of the demo's network, for each address family and kind of device.

use super::support::{DEMO, Lab, PRIVATE, PUBLIC, SERVICE, privileged};
use super::{ping, source_seen, throughput, trace};

const ENDPOINT: [&str; 2] = ["spoke/workload", "Microsoft.Storage"];

#[test]
fn tunnel_and_endpoint_with_offload() {
    tunnel_and_endpoint("offload");
}

#[test]
fn tunnel_and_endpoint_plain() {
    tunnel_and_endpoint("plain");
}

fn tunnel_and_endpoint(io: &str) {
    if !privileged() {
        return;
    }
    let mut lab = Lab::up(io, DEMO);
    lab.start_node(&["--io", io]);
    let mut server = lab.spawn("storage", "iperf3 -s --forceflush");
    server.wait_for("Server listening");

    let mut tunnel = Vec::new();
    for (family, to) in SERVICE.iter().enumerate() {
        let path = trace(&lab, "vm1", to);
        assert_eq!(path.len(), 5, "{path:?}");
        assert_eq!(path.last().map(String::as_str), Some(*to));
        assert_eq!(source_seen(&lab, "vm1", to), PUBLIC[family]);
        let there = throughput(&lab, "vm1", to, false);
        let back = throughput(&lab, "vm1", to, true);
        // The tunnel carries 200 Mbit/s.
        assert!(there > 0.02 && there < 0.21 && back > 0.02 && back < 0.21, "{to}: {there} {back} Gb/s");
        tunnel.push((ping(&lab, "vm1", to), there));
    }

    lab.run(&["endpoint", "enable", ENDPOINT[0], ENDPOINT[1]]);
    for (family, to) in SERVICE.iter().enumerate() {
        let path = trace(&lab, "vm1", to);
        assert_eq!(path.len(), 2, "{path:?}");
        assert_eq!(path.last().map(String::as_str), Some(*to));
        assert_eq!(source_seen(&lab, "vm1", to), PRIVATE[family]);
        let (slow, narrow) = tunnel[family];
        let direct = ping(&lab, "vm1", to);
        assert!(direct < slow / 2.0, "{to}: ping {direct} ms, {slow} ms in the tunnel");
        for reverse in [false, true] {
            let wide = throughput(&lab, "vm1", to, reverse);
            assert!(wide > narrow, "{to}: {wide} Gb/s, {narrow} Gb/s in the tunnel, reverse {reverse}");
        }
    }

    // Everything else stays in the tunnel.
    assert_eq!(source_seen(&lab, "vm1", "198.51.100.80"), PUBLIC[0]);
    assert_eq!(source_seen(&lab, "vm1", "2001:db8:80::80"), PUBLIC[1]);
    assert_eq!(trace(&lab, "vm1", "198.51.100.80").len(), 3);

    lab.run(&["endpoint", "disable", ENDPOINT[0], ENDPOINT[1]]);
    assert_eq!(source_seen(&lab, "vm1", SERVICE[0]), PUBLIC[0]);
    lab.accounted();
    lab.stop_node();
}

#[test]
fn names_resolve_to_public_addresses_in_every_namespace() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::up("names", DEMO);
    lab.start_node(&[]);
    let sees = |family: &str, name: &str| {
        let out =
            lab.exec("vm1", &format!("curl -{family} -sS --fail --noproxy * --max-time 8 -H accept:text/plain {name}"));
        out.trim().to_owned()
    };
    assert_eq!(sees("4", "contosodata.blob.core.windows.net"), format!("contosodata sees {}", PUBLIC[0]));
    assert_eq!(sees("6", "contosodata.blob.core.windows.net"), format!("contosodata sees {}", PUBLIC[1]));
    assert_eq!(sees("4", "www.example.com"), format!("www.example.com sees {}", PUBLIC[0]));
    lab.accounted();
}

#[test]
fn the_vm_sends_only_from_its_own_addresses() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::up("spoof", DEMO);
    lab.start_node(&[]);
    lab.exec("vm1", "ip address add 10.1.1.99/32 dev lo");
    assert!(!lab.output("vm1", "ping -n -c 2 -i 0.05 -W 1 -I 10.1.1.99 20.60.1.10").status.success());
    let counters = lab.accounted();
    assert_eq!(counters.dropped.iter().filter(|(reason, _)| reason.contains("spoof")).map(|(_, n)| n).sum::<u64>(), 2);
}
