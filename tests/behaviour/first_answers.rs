//! Records of flows: which are made where first answers are all that somebody wants.

use std::sync::Arc;

use sidestep::path::DropReason;
use sidestep::path::record::{Event, Records};
use sidestep::snapshot::NextHopType;

use crate::bench::Bench;
use crate::packets::udp;

const VM: (&str, u16) = ("10.1.1.4", 5_000);
const SERVICE: (&str, u16) = ("20.60.1.10", 443);

/// Two datagrams there and one back, the first answer after 40 ms, and a packet that is dropped.
fn converse(bench: &mut Bench) {
    bench.forwarder.tell_micros(|| 1_000);
    bench.forward("vm1", udp(VM, SERVICE, b"ask"), "contosodata");
    bench.forward("vm1", udp(VM, SERVICE, b"ask"), "contosodata");
    bench.forwarder.tell_micros(|| 41_000);
    bench.forward("contosodata", udp(SERVICE, VM, b"answer"), "vm1");
    bench.dropped("vm1", udp(VM, ("10.1.1.200", 53), b"nobody"), DropReason::AddressUnassigned);
}

#[test]
fn where_first_answers_are_wanted_nothing_else_is_made() {
    let mut bench = Bench::with_endpoint();
    bench.log_nothing();
    let records = Arc::new(Records::default());
    records.want_only_replies(true);
    bench.forwarder.log_to(Some(records.clone()), bench.now);
    converse(&mut bench);
    let reply = records.take().unwrap();
    assert_eq!((reply.event, reply.round_trip), (Event::Reply, Some(40_000)));
    assert_eq!(reply.next_hop_type, Some(NextHopType::VirtualNetworkServiceEndpoint));
    assert!(records.take().is_none() && records.lost().records == 0);

    // Whoever comes and wants everything gets what comes from then on.
    records.want_only_replies(false);
    bench.dropped("vm1", udp(VM, ("10.1.1.200", 53), b"nobody"), DropReason::AddressUnassigned);
    assert_eq!(records.take().unwrap().event, Event::Dropped(DropReason::AddressUnassigned));
}
