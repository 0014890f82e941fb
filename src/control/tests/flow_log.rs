//! Who follows the flow log is told everything, or how much it was not told.

use super::*;
use crate::control::flow_log::FlowLogLine;
use crate::control::flow_log::tests::record_of;
use crate::control::streamed::Streamed;
use crate::path::record::Event;

impl Setup {
    fn add_records(&self, records: usize) {
        let queue = self.stage.records.lock().unwrap().clone().expect("records are wanted");
        let snapshot = self.node.current().snapshot.clone();
        let record = record_of(&snapshot, Event::Continue, flow([20, 60, 1, 10]).sides);
        (0..records).for_each(|_| queue.add(record.clone()));
    }
}

/// Records that were told, and how many were said to be lost, so far.
fn told(streamed: &mut Streamed) -> (u64, u64) {
    let (mut records, mut lost) = (0, 0);
    while let Ok(piece) = streamed.0.try_recv() {
        for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line).unwrap() {
                FlowLogLine::Record(record) => {
                    assert_eq!(record.ingress.as_deref(), Some("vm1"));
                    records += 1;
                }
                FlowLogLine::Lost(more) => lost += more,
            }
        }
    }
    (records, lost)
}

#[test]
fn what_the_queues_lost_is_told_at_once_to_who_followed_then() {
    let setup = Setup::new();
    let mut early = setup.node.follow_flow_log().unwrap();
    // More than a queue holds, and no record after that.
    setup.add_records((1 << 15) + 5);
    let mut late = setup.node.follow_flow_log().unwrap();
    let lost = setup.node.seen().flow_log.lost_records;
    assert_eq!(lost, 5);
    setup.node.look_at_flow_log();
    let (records, missing) = told(&mut early);
    assert_eq!(records + missing, (1 << 15) + 5);
    assert!(records > 0);
    // The other one misses what it had no room for, not what was lost before.
    let (records, missing) = told(&mut late);
    assert_eq!(records + missing, 1 << 15);
    setup.add_records(1);
    setup.node.look_at_flow_log();
    assert_eq!((told(&mut early), told(&mut late)), ((1, 0), (1, 0)));
}

#[test]
fn the_end_tells_what_a_slow_reader_missed() {
    let setup = Setup::new();
    let mut slow = setup.node.follow_flow_log().unwrap();
    for _ in 0..3 {
        setup.add_records(1 << 15);
        setup.node.look_at_flow_log();
    }
    setup.add_records(1);
    setup.node.stop(None);
    let (records, lost) = told(&mut slow);
    assert_eq!(records + lost, 3 * (1 << 15) + 1);
    assert!(lost > 0 && slow.0.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Disconnected));
}

/// So many pieces that there is no place for another.
#[test]
fn the_end_tells_what_was_missed_even_where_every_place_is_taken() {
    let setup = Setup::new();
    let mut slow = setup.node.follow_flow_log().unwrap();
    for _ in 0..9_000 {
        setup.add_records(1);
        setup.node.look_at_flow_log();
    }
    setup.node.stop(None);
    let (records, lost) = told(&mut slow);
    assert_eq!(records + lost, 9_000);
    assert!(lost > 0);
}

#[test]
fn so_many_follow_and_no_more() {
    let setup = Setup::new();
    let mut following: Vec<_> = (0..16).map(|_| setup.node.follow_flow_log().unwrap()).collect();
    let refusal = setup.node.follow_flow_log().err().expect("refused");
    assert_eq!(refusal.status(), 409);
    assert_eq!(refusal.to_string(), "16 follow the flow log, as many as may: end one of them, or try again");
    following.pop();
    following.push(setup.node.follow_flow_log().unwrap());
    drop(following);
    setup.node.look_at_flow_log();
    assert!(setup.stage.records.lock().unwrap().is_none(), "nobody wants records any more");
}
