//! How full the flow tables are.

use super::*;
use crate::control::answers::FlowUse;

/// The document with a limit of 10 flows, and 8 for each NIC.
fn setup() -> Setup {
    Setup::with(&format!("{DOCUMENT}{SECOND_NIC}\n[flows]\nlimit = 10\nlimit_per_nic = 8\n")).unwrap()
}

impl Setup {
    fn give(&self, flows: &[(&str, u32)]) {
        let ports = self.node.ports();
        let number = |name: &str| PortId(ports.iter().position(|port| port.name == name).unwrap() as u16);
        *self.stage.owners.lock().unwrap() = flows.iter().map(|(name, flows)| (number(name), *flows)).collect();
    }
}

#[test]
fn the_status_names_the_owners_when_it_is_nearly_full() {
    let setup = setup();
    setup.give(&[("vm1", 6), ("vm2", 2)]);
    let status = setup.node.status();
    assert_eq!(status.flows, FlowUse { used: 8, limit: 10, limit_per_nic: 8, owners: Vec::new() });
    let named = |flows: &[(&str, u32)]| {
        setup.give(flows);
        let owners = setup.node.status().flows.owners;
        owners.into_iter().map(|owner| format!("{} {}", owner.port, owner.flows)).collect::<Vec<_>>()
    };
    assert_eq!(named(&[("vm1", 6), ("vm2", 3)]), ["vm1 6", "vm2 3"], "the node is");
    assert_eq!(named(&[("vm2", 7)]), ["vm2 7"], "a NIC is");
    assert_eq!(setup.node.counters().flow_limit, 10);
}

#[test]
fn the_log_says_it_once_with_names() {
    let setup = setup();
    let said = |flows: &[(&str, u32)]| {
        setup.give(flows);
        setup.node.look_at_flows()
    };
    assert_eq!(said(&[("vm1", 6), ("vm2", 2)]), [""; 0]);
    assert_eq!(said(&[("vm1", 6), ("vm2", 3)]), ["the node has 9 of 10 flows; most of them: vm1 6, vm2 3"]);
    assert_eq!(said(&[("vm1", 7), ("vm2", 3)]), ["vm1 has 7 of the 8 flows of a NIC"]);
    assert_eq!(said(&[("vm1", 7), ("vm2", 3)]), [""; 0]);
    assert_eq!(said(&[("vm1", 5), ("vm2", 1)]), [""; 0]);
    assert_eq!(
        said(&[("vm1", 7), ("vm2", 2)]),
        ["the node has 9 of 10 flows; most of them: vm1 7, vm2 2", "vm1 has 7 of the 8 flows of a NIC"]
    );
}
