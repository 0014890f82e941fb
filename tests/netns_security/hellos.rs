//! Policies read the name of a connection however its hello arrives: byte by byte, in segments of a hundred bytes, as one
//! super-packet of those, or larger than a segment.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::client::{Manner, get};
use super::support::Lab;
use super::{APP, CONTOSO, FABRIKAM, SECURED, curl, ended_at_once, on_both};

const SHARED: &str = "20.60.1.20";

/// The account of the policy answers, and the other one's connection is reset within a time.
#[track_caller]
fn told_apart(lab: &Lab, manner: Manner, within: Duration) {
    let answer = get(lab, APP, SHARED, CONTOSO, manner).unwrap_or_else(|error| panic!("{manner:?}: {error}"));
    assert!(answer.contains(r#"{"source":"10.1.1.4","server":"contosodata"}"#), "{manner:?}: {answer}");
    let begin = Instant::now();
    let error = get(lab, APP, SHARED, FABRIKAM, manner).expect_err("denied");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{manner:?}: {error}");
    assert!(begin.elapsed() < within, "{manner:?}: {:?}", begin.elapsed());
}

#[test]
fn byte_by_byte() {
    on_both("bytes", SECURED, |lab| {
        told_apart(lab, Manner { piece: 1, pause: Duration::from_millis(1), protocols: 0 }, Duration::from_secs(5));
    });
}

#[test]
fn larger_than_a_segment() {
    on_both("hello", SECURED, |lab| {
        // 1,900 bytes are what a hello with a post-quantum key share has; 5,600 are four segments.
        for protocols in [95, 300] {
            let whole = Manner { piece: usize::MAX, pause: Duration::ZERO, protocols };
            told_apart(lab, whole, Duration::from_secs(1));
            told_apart(lab, Manner { piece: 700, ..whole }, Duration::from_secs(1));
        }
    });
}

#[test]
fn in_segments_of_a_hundred_bytes() {
    on_both("segments", SECURED, |lab| {
        // What a server advertises is what a client sends: with offload the segments come as one super-packet.
        let routes = lab.exec("secured-front", "ip route show default");
        let route = routes.lines().next().expect("a default route").trim_end();
        lab.exec("secured-front", &format!("ip route replace {route} advmss 100"));
        assert_eq!(curl(lab, APP, &format!("https://{CONTOSO}/")).source(), "10.1.1.4");
        ended_at_once(lab, APP, &format!("https://{FABRIKAM}/"), &[35]);
        told_apart(lab, Manner { piece: usize::MAX, pause: Duration::ZERO, protocols: 95 }, Duration::from_secs(1));
        let counters = lab.accounted();
        let supers = counters.ports["app1"].get("super_packets_in").is_some_and(|count| *count > 0);
        assert_eq!(supers, lab.name().ends_with("offload"), "{counters:?}");
    });
}
