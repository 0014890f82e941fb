//! An appliance subnet between a workload and the service: the workload's routes lead to the appliance, and the endpoint
//! is on the appliance's subnet.

use crate::conversation::Web;
use crate::node::Site;
use crate::site::FAMILIES;
use crate::support::privileged;

#[test]
fn an_appliance_stands_between_workload_and_service() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm2", "appliance", "storage"]).start(&[]);
    let _service = Web::serve(&node.site.lab, "storage");
    node.endpoint("hub/appliances", true);
    for family in FAMILIES {
        let service = family.service;
        node.ping("vm2", service);
        // The appliance's own router is a hop of what it passes on.
        let path = [family.gateways[1], family.appliance, family.appliance_gateway, service];
        assert_eq!(node.trace("vm2", family.option, service), path);
        assert_eq!(node.curl("vm2", &family.url(service)), family.vms[1]);
        node.iperf_both("vm2", "storage", service);
    }
    // Without the endpoint the appliance's way to the service is default outbound access.
    node.endpoint("hub/appliances", false);
    for family in FAMILIES {
        assert_eq!(node.curl("vm2", &family.url(family.service)), family.public);
    }
    node.finish();
}
