//! An appliance subnet between a workload and the service: the endpoint is on the appliance's subnet, so that the
//! workload's traffic is inspected and then takes the backbone.

use super::support::{Lab, privileged};
use super::{ping, source_seen, throughput, trace};

const DOCUMENT: &str = r#"
location = "westeurope"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  route_table = "inspect"

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.1.2.0/24", "fd00:1:0:2::/64"]
  service_endpoints = [{ service = "Microsoft.Storage" }]

[[route_table]]
name = "inspect"
routes = [
  { name = "all", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.1.2.4" },
  { name = "all6", address_prefix = "::/0", next_hop_type = "VirtualAppliance", next_hop_ip_address = "fd00:1:0:2::4" },
]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "eth0", netns = "vm1" }

[[nic]]
name = "appliance"
subnet = "spoke/appliances"
private_addresses = ["10.1.2.4", "fd00:1:0:2::4"]
ip_forwarding = true
device = { tun = "eth0", netns = "appliance" }

[[service]]
name = "contosodata"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10", "2603:1020:206:100::10"]
device = { tun = "eth0", netns = "storage" }
"#;

const CASES: [(&str, &str, &str); 2] =
    [("20.60.1.10", "10.1.1.4", "10.1.2.4"), ("2603:1020:206:100::10", "fd00:1:0:1::4", "fd00:1:0:2::4")];

#[test]
fn the_appliance_inspects_what_takes_the_backbone_from_its_subnet() {
    for io in ["offload", "plain"] {
        if !privileged() {
            return;
        }
        let mut lab = Lab::up(&format!("nva-{io}"), DOCUMENT);
        lab.start_node(&["--io", io]);
        let mut server = lab.spawn("storage", "iperf3 -s --forceflush");
        server.wait_for("Server listening");
        for (to, private, appliance) in CASES {
            let path = trace(&lab, "vm1", to);
            assert!(path.iter().any(|hop| hop == appliance), "{io}: {path:?}");
            assert_eq!(path.last().map(String::as_str), Some(to), "{io}: {path:?}");
            assert_eq!(source_seen(&lab, "vm1", to), private, "{io}");
            assert!(ping(&lab, "vm1", to) < 1000.0);
            for reverse in [false, true] {
                assert!(throughput(&lab, "vm1", to, reverse) > 0.01, "{io} {to} reverse {reverse}");
            }
        }
        // What the appliance refuses does not arrive: traffic really passes through it.
        lab.exec("appliance", "ip route add blackhole 20.60.1.10/32");
        assert!(!lab.output("vm1", "ping -n -c 2 -i 0.05 -W 1 20.60.1.10").status.success());

        // With an endpoint of its own, the workload no longer asks the appliance.
        lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);
        let path = trace(&lab, "vm1", "20.60.1.10");
        assert_eq!(path.len(), 2, "{io}: {path:?}");
        assert_eq!(source_seen(&lab, "vm1", "20.60.1.10"), "10.1.1.4", "{io}");
        lab.accounted();
        lab.stop_node();
    }
}
