use super::*;
use crate::lab::demo::record::{Datagram, Phase, Ping, Rate};
use crate::lab::demo::report::tests::report;

fn timeline() -> Timeline {
    let rates = |gbps: fn(f64) -> f64| {
        let samples = (-40..60).map(|tenth| f64::from(tenth) / 10.0);
        samples.map(|at_s| Rate { at_s, gbps: gbps(at_s) }).collect::<Vec<_>>()
    };
    let ping = |tenth: i32| Ping {
        at_s: f64::from(tenth) / 10.0,
        round_trip_ms: (tenth != 0).then_some(if tenth < 0 { 20.5 } else { 0.2 }),
        ttl: (tenth != 0).then_some(if tenth < 0 { 62 } else { 63 }),
    };
    let datagram = |millisecond: i32| Datagram {
        at_s: f64::from(millisecond) / 1000.0,
        round_trip_ms: (!(-15..5).contains(&millisecond)).then_some(if millisecond < 0 { 20.4 } else { 0.1 }),
        source_seen: (!(-1..0).contains(&millisecond))
            .then(|| if millisecond < 0 { [203, 0, 113, 10].into() } else { [10, 1, 1, 4].into() }),
    };
    let phase = |from_s, to_s| Phase { what: PhaseKind::Throughput, from_s, to_s };
    Timeline {
        phases: vec![phase(-3.5, -0.5), phase(2.0, 5.0)],
        pings: (-40..60).map(ping).collect(),
        service: rates(|at| if at < 0.0 { 0.19 } else { 9.4 }),
        tunnel: rates(|at| if at < 0.0 { 0.19 } else { 0.0 }),
        datagrams: (-250..1000).map(datagram).collect(),
        back_after_ms: vec![3.0, 21.4, 24.0],
    }
}

fn setting() -> Setting {
    let subject = Subject::new(None).expect("subject");
    Setting::of(&Options::default(), &subject)
}

fn html(report: &Report, timeline: &Timeline, setting: &Setting, failures: &[String]) -> String {
    Page { report, timeline, setting, failures }.html()
}

fn page() -> String {
    html(&report(), &timeline(), &setting(), &[])
}

/// Reads elements one after the other: every one that is opened is closed in its turn.
fn check_nesting(page: &str) {
    let void = ["meta", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = rest[start..].find('>').expect("an end of the tag") + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().expect("name");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {:?}", &rest[..rest.len().min(80)]);
        } else if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
            if matches!(name, "script" | "style") {
                rest = &rest[rest.find(&format!("</{name}>")).expect("its end")..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The value of an attribute of the first element that has this text.
fn attribute(element: &str, name: &str) -> f64 {
    let from = element.find(&format!("{name}=\"")).expect("attribute") + name.len() + 2;
    element[from..].split('"').next().expect("value").parse().expect("number")
}

fn charts(page: &str, name: &str) -> Vec<String> {
    let of = format!("data-chart=\"{name}\"");
    let svgs = page.split("<svg").skip(1).map(|svg| svg.split("</svg>").next().expect("end"));
    svgs.filter(|svg| svg.contains(&of)).map(str::to_owned).collect()
}

#[test]
fn the_page_is_well_formed() {
    check_nesting(&page());
    check_nesting(&html(&report(), &Timeline::default(), &setting(), &["it is <slow>".to_owned()]));
}

#[test]
fn the_page_asks_for_nothing_else() {
    let page = page();
    for word in ["http:", "https:", "src=", "href=", "@import", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(word), "{word}");
    }
    // Pieces of pictures refer to each other, and to nothing outside.
    for part in page.split("url(").skip(1) {
        assert!(part.starts_with("#head-"), "{}", &part[..part.len().min(40)]);
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn names_are_escaped() {
    let evil = "<script>alert(\"x\")</script>&'";
    let mut setting = setting();
    for name in
        [&mut setting.nic, &mut setting.subnet, &mut setting.resource, &mut setting.service, &mut setting.tunnel]
    {
        *name = evil.to_owned();
    }
    setting.document = evil.to_owned();
    setting.versions.push(("Odd".to_owned(), evil.to_owned()));
    let mut report = report();
    report.forced_tunnel.next_hop_type = evil.to_owned();
    report.forced_tunnel.path = vec![evil.to_owned()];
    let page = html(&report, &timeline(), &setting, &[evil.to_owned()]);
    check_nesting(&page);
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own");
    assert!(page.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;"));
}

#[test]
fn the_switch_is_marked_where_it_was() {
    let page = page();
    for name in ["throughput", "latency", "datagrams"] {
        let charts = charts(&page, name);
        assert_eq!(charts.len(), 2, "{name} wide and narrow");
        for chart in charts {
            let [from, to, left, right] =
                ["data-from", "data-to", "data-left", "data-right"].map(|name| attribute(&chart, name));
            let mark = chart.split("class=\"switch\"").nth(1).expect("a mark");
            let at: f64 =
                mark[mark.find("d=\"M").expect("path") + 4..].split(' ').next().expect("x").parse().expect("x");
            let expected = left + (0.0 - from) / (to - from) * (right - left);
            assert!((at - expected).abs() < 0.06, "{name}: {at}, not {expected}");
            // What came before it is drawn in the tunnel's colour and left of it, the rest on the other side. An area begins and
            // ends with a sample of nothing.
            let beside = if name == "throughput" { 0.11 / (to - from) * (right - left) } else { 0.06 };
            for (class, left_of) in [("tunnel\"", true), ("endpoint\"", false)] {
                let shapes =
                    chart.split("<path class=\"").filter(|path| path.starts_with("dots") || path.starts_with("line"));
                for shape in shapes.filter(|shape| shape.split('>').next().is_some_and(|head| head.contains(class))) {
                    let path = shape.split("d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("path");
                    for point in path.split(['M', 'L']).filter(|point| !point.is_empty()) {
                        let x: f64 = point.split(' ').next().expect("x").parse().expect("number");
                        assert!(if left_of { x <= at + beside } else { x >= at - beside }, "{name}: {x} of {class}");
                    }
                }
            }
        }
    }
}

/// Colours are what was measured, not what the clock said should be so.
#[test]
fn a_switch_that_did_nothing_has_no_traffic_of_the_endpoint() {
    let mut timeline = timeline();
    timeline.tunnel.clone_from(&timeline.service);
    timeline.pings.iter_mut().for_each(|ping| ping.ttl = ping.ttl.map(|_| 62));
    let public = "203.0.113.10".parse().expect("address");
    timeline.datagrams.iter_mut().for_each(|datagram| datagram.source_seen = Some(public));
    let page = html(&report(), &timeline, &setting(), &[]);
    for name in ["throughput", "latency", "datagrams"] {
        for chart in charts(&page, name) {
            let shapes = |class: &str| {
                let of = |shape: &str| chart.matches(&format!("<path class=\"{shape} {class}\"")).count();
                of("line") + of("area") + of("dots") + of("dots fine")
            };
            assert!(shapes("tunnel") > 0 && shapes("endpoint") == 0, "{name}");
        }
    }
    // An answer that took as many hops as neither path is of neither.
    timeline.pings.iter_mut().for_each(|ping| ping.ttl = Some(50));
    let page = html(&report(), &timeline, &setting(), &[]);
    assert!(charts(&page, "latency")[0].contains("class=\"dots quiet\""));
    let mut report = report();
    report.service_endpoint.next_hop_type = report.forced_tunnel.next_hop_type.clone();
    let page = html(&report, &timeline, &setting(), &[]);
    assert!(!charts(&page, "throughput")[0].contains("class=\"note endpoint\""));
}

#[test]
fn the_numbers_are_those_of_the_report() {
    let (page, report) = (page(), report());
    for text in [
        "20.9 ms, then",
        "0.25 ms</span>",
        "0.19 Gb/s, then",
        "9.5 Gb/s</span>",
        "203.0.113.10, then",
        "10.1.1.4</span>",
        "21.4 ms</span>",
        "(median of 8; 24 ms at worst). Web traffic, not switched: 0 resets",
        "84 times as fast",
        "50 times as much",
        "8 of 8 heard their reset",
        "back after 5.01 s",
        "1300 datagrams 1 were lost on the way there, and 21 echoes",
        "The forwarder reset 9 flows.",
        ">sees 10.1.1.4<",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data["report"], serde_json::to_value(&report).expect("writes"));
    assert_eq!(data["timeline"], serde_json::to_value(timeline()).expect("writes"));
    assert_eq!(data["setting"]["service"], "Microsoft.Storage");
    // As many points are drawn as there are answers.
    let chart = &charts(&page, "latency")[0];
    let dots = chart
        .split("<path class=\"dots")
        .skip(1)
        .map(|path| path.split('>').next().expect("head").matches('M').count());
    assert_eq!(dots.sum::<usize>(), 99, "100 pings, one without an answer");
    assert!(chart.contains("1 without an answer"));
}

#[test]
fn what_ran_is_told() {
    let page = page();
    for text in
        [env!("CARGO_PKG_VERSION"), "10 ms each way, 200 Mbit/s", "segmentation offload", "[[virtual_network]]", " UTC"]
    {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn a_run_that_failed_says_so_first() {
    let page = html(&report(), &timeline(), &setting(), &["the path is <odd>".to_owned()]);
    let (said, figures) = (page.find("<li>the path is &lt;odd&gt;</li>"), page.find("class=\"figures\""));
    assert!(said.is_some() && said < figures);
    assert!(!self::page().contains("Not as it should be"));
}

#[test]
fn days_become_dates() {
    let at = |seconds| utc(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01 00:00 UTC");
    assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
    assert_eq!(at(1_735_689_599), "2024-12-31 23:59 UTC");
    assert_eq!(at(1_772_323_260), "2026-03-01 00:01 UTC");
}

#[test]
fn a_file_keeps_what_it_has_until_there_is_a_page() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("demo.html");
    drop(PageFile::open(&path).expect("opens"));
    assert!(!path.exists(), "nothing was written, so nothing is left");

    std::fs::write(&path, "an older and longer page").expect("write");
    drop(PageFile::open(&path).expect("opens"));
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "an older and longer page");
    PageFile::open(&path).expect("opens").write("a page").expect("writes");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "a page");

    let error = PageFile::open(folder.path()).expect_err("a folder is no file");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    assert!(PageFile::open(&folder.path().join("none/demo.html")).is_err());
}
