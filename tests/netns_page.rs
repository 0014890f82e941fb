//! The page in a real browser, on a real node with real traffic: what it shows, and the switch of an endpoint by keyboard.
//!
//! Needs root, /dev/net/tun, the lab's tools, chromium and chromedriver; says aloud when it cannot run, and fails then if `CI`
//! is `true`.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/lab.rs"]
mod support;

use std::time::{Duration, Instant};

use browser::{Browser, DOWN, ENTER, ESCAPE, TAB};
use serde_json::json;
use support::{DEMO, Lab, SERVICE, privileged_with};

/// The demo's network with a security group on the workload, so that there are rules to look up, and a tunnel of 20 ms each way, which
/// nothing on this machine takes without it.
fn document() -> String {
    let group = r#"
[[network_security_group]]
name = "workload"
security_rules = [
  { name = "no-mail", priority = 100, direction = "Outbound", access = "Deny", protocol = "Tcp", source_address_prefix = "*", destination_address_prefix = "*", destination_port_range = "25" },
]

[[nic]]
"#;
    let table = "route_table = \"to-on-premises\"\n";
    let document = DEMO.replacen(table, &format!("{table}  network_security_group = \"workload\"\n"), 1);
    let document = document.replacen("[[nic]]\n", group, 1);
    let (demo, longer) = ("delay = \"10ms\"", "delay = \"20ms\"");
    assert!(document.contains(demo));
    document.replacen(demo, longer, 1)
}

/// The cell of a column in the row of the ping.
fn cell(column: &str) -> String {
    format!(
        "const row = [...document.querySelectorAll('.flow-table tbody tr')].find(row => row.dataset.key.startsWith('icmp vm1 '));
         return row?.querySelector('[data-column={column}]').textContent"
    )
}

/// Makes new flows to the service, and gives the round-trip time in milliseconds that the plot then shows for a path.
fn first_answers(lab: &Lab, browser: &Browser, path: &str) -> f64 {
    for _ in 0..3 {
        lab.exec("vm1", &format!("ping -c 1 -W 5 {}", SERVICE[0]));
        lab.exec("vm1", &format!("curl -sS -m 10 -o /dev/null http://{}/", SERVICE[0]));
    }
    let last = browser.wait_for(&format!(
        "const label = document.querySelector('#latency svg').getAttribute('aria-label');
         return label.match(/ Last: .*{path} ([0-9.]+) ms/)?.[1]"
    ));
    last.as_str().and_then(|number| number.parse().ok()).expect("a number")
}

const FOCUSED: &str = "const one = document.activeElement; return one.getAttribute('aria-label') ?? one.textContent";
const SHOWN: &str = "return document.querySelector('#map .shown').dataset.way";

#[test]
fn the_page_shows_paths_and_switches_an_endpoint_by_keyboard() {
    if !privileged_with(&["chromium", "chromedriver"]) {
        return;
    }
    let mut lab = Lab::up("page", &document());
    lab.start_node(&["--page", "127.0.0.1:0"]);
    let url = lab.said("page").to_owned();
    let _ping = lab.spawn("vm1", &format!("ping -i 0.1 {}", SERVICE[0]));
    let browser = Browser::start();
    browser.set(1280, 900, &[("prefers-color-scheme", "light")]);
    browser.open(&url);

    // The flow's path, in words and drawn.
    let hop = format!("{} === 'VirtualNetworkGateway'", cell("hop"));
    browser.wait_for(&hop);
    assert_eq!(browser.text(&cell("path")), "Tunnel");
    assert_eq!(browser.text(&cell("endpoint")), "–");
    assert_eq!(browser.text("return location.hash + location.search"), "", "the token stays in the address");
    browser.press("/");
    browser.press("icmp vm1");
    browser.press(ESCAPE);
    browser.press("f");
    browser.wait_for(&format!("{SHOWN} === 'nic:vm1 gateway site internet service:contosodata'"));
    browser.wait_for(
        "return document.getElementById('route').textContent.startsWith('Tunnel: icmp 10.1.1.4 → 20.60.1.10')",
    );
    // Traffic has a line of its own on the map, and a rate.
    browser.wait_for("return document.querySelector('.traffic .path-tunnel.busy') !== null");
    browser.wait_for("return document.querySelector('#board .path-tunnel .value').textContent.endsWith('kbit/s')");

    // A ping that was there before somebody looked has had its first answer; new flows are what tells how long the path takes.
    browser.wait_for(
        "return document.getElementById('latency').textContent.includes('No new flow of a NIC has been answered yet.')",
    );
    let tunnel = first_answers(&lab, &browser, "Tunnel");
    assert!((40.0..400.0).contains(&tunnel), "20 ms there and 20 ms back: {tunnel} ms");
    assert_eq!(browser.run("return document.querySelector('#latency .path-endpoint')"), json!(null));

    // Tried: routes and flows that would change, and nothing has.
    browser.press("e");
    assert_eq!(browser.text(FOCUSED), "Try to enable Microsoft.Storage on spoke/workload");
    browser.press(ENTER);
    browser.wait_for("return document.activeElement.id === 'confirm'");
    let trial = browser.text("return document.querySelector('.trial').innerText");
    for part in [
        "Dry run: routes of 1 subnet change",
        "VirtualNetworkServiceEndpoint Microsoft.Storage",
        "icmp 10.1.1.4 → 20.60.1.10",
    ] {
        assert!(trial.contains(part), "no {part} in {trial}");
    }
    assert!(lab.run(&["next-hop", "--from", "vm1", "--to", SERVICE[0]]).contains("VirtualNetworkGateway"));
    // Left, and tried again.
    browser.press(ESCAPE);
    assert_eq!(browser.text(FOCUSED), "Try to enable Microsoft.Storage on spoke/workload");
    browser.press(ENTER);
    browser.wait_for("return document.activeElement.id === 'confirm'");

    // Confirmed: the same flow goes over the backbone.
    browser.press(ENTER);
    let confirmed = Instant::now();
    browser.wait_for(&format!("{} === 'VirtualNetworkServiceEndpoint'", cell("hop")));
    let took = confirmed.elapsed();
    assert!(took < Duration::from_secs(1), "the page shows the switch after {took:?}");
    assert_eq!(browser.text(&cell("path")), "Endpoint");
    browser.wait_for(&format!("{} === 'Microsoft.Storage'", cell("endpoint")));
    browser.wait_for("return document.querySelector('.result').textContent.startsWith('Microsoft.Storage on spoke/workload is on since generation 2')");
    assert_eq!(browser.text(FOCUSED), "Try to disable Microsoft.Storage on spoke/workload");
    browser.press("f");
    browser.press(DOWN);
    browser.wait_for(&format!("{SHOWN} === 'nic:vm1 backbone service:contosodata'"));
    browser.wait_for("return document.querySelector('.traffic .path-endpoint.busy') !== null");
    browser.wait_for("return document.querySelector('#throughput .mark-text')?.textContent === 'Storage on'");
    browser.wait_for("return document.querySelector('#changes li').textContent.includes('enable Microsoft.Storage on spoke/workload')");

    let endpoint = first_answers(&lab, &browser, "Endpoint");
    assert!(endpoint < 20.0, "{endpoint} ms where no tunnel is");

    // Which route and rule win for an address, and why the others lose.
    browser.press("a");
    browser.press(SERVICE[0]);
    browser.press(ENTER);
    browser.wait_for("return document.querySelector('#lookup-answer .candidates .won') !== null");
    let candidates = |class: &str| {
        browser.text(&format!("return [...document.querySelectorAll('#lookup-answer .candidates .{class}')].map(one => one.innerText).join('|')"))
    };
    let (won, lost) = (candidates("won"), candidates("lost"));
    assert!(won.contains("VirtualNetworkServiceEndpoint") && won.contains("wins"), "{won}");
    assert!(lost.contains("VirtualNetworkGateway"), "{lost}");
    assert!(lost.contains("the Microsoft.Storage endpoint comes first"), "{lost}");
    let rule = browser.text("return document.querySelector('#lookup-answer .rulings').innerText");
    assert!(rule.contains("workload (subnet): Allow by AllowVnetOutBound"), "{rule}");
    browser.wait_for("return document.querySelector('#effective').textContent.includes('100 no-mail Outbound Deny')");
    browser.wait_for("return document.querySelector('#effective').textContent.includes('other port')");
    // A search without a hit, and the list of keys.
    browser.press(ESCAPE);
    browser.press("/");
    browser.press(" nothing-like-this");
    browser.wait_for("return document.querySelector('#flow-table').textContent.includes('No flow matches.')");
    browser.press(ESCAPE);
    browser.run("document.getElementById('search').value = ''");
    browser.press("?");
    browser.wait_for("return document.getElementById('help').open");
    browser.press(ESCAPE);
    browser.wait_for("return !document.getElementById('help').open");

    check_layout(&browser);
    // The network is asked for nothing but the page, and no script fails.
    assert_eq!(browser.console(), Vec::<String>::new());
    let foreign = "return performance.getEntriesByType('resource').map(one => one.name).filter(name => !name.startsWith(location.origin))";
    assert_eq!(browser.run(foreign), json!([]));

    // A name that nobody knows is said, not swallowed.
    browser.press("a");
    browser.press("nobody.example");
    browser.press(ENTER);
    browser
        .wait_for("return document.querySelector('#lookup-answer .problem')?.textContent.includes('nobody.example')");

    // What was tried is what is confirmed: a change that comes between is not switched over.
    browser.press(ESCAPE);
    browser.press("e");
    browser.press(ENTER);
    browser.wait_for("return document.activeElement.id === 'confirm'");
    lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Sql"]);
    browser.press(ENTER);
    browser.wait_for(
        "return document.querySelector('#endpoints .problem').textContent.startsWith('Not switched: the network has changed since the dry run')",
    );
    assert!(lab.run(&["next-hop", "--from", "vm1", "--to", SERVICE[0]]).contains("VirtualNetworkServiceEndpoint"));

    // The token of another start gets nobody in.
    let (place, _) = url.split_once('#').expect("token");
    browser.open("about:blank");
    browser.open(&format!("{place}#{}", "0".repeat(32)));
    browser.wait_for("return document.getElementById('problem').textContent.startsWith('This page has no token of the running node')");
    assert_eq!(browser.run("return document.getElementById('main').hidden"), true);
}

/// Wide and narrow, light and dark: nothing sticks out, everything that can be used has a name, and what moves can be stopped.
fn check_layout(browser: &Browser) {
    for (width, scheme) in [(360, "light"), (360, "dark"), (768, "light"), (1600, "dark")] {
        browser.set(width, 800, &[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")]);
        browser.wait_for(&format!("return document.getElementById('map').viewBox.baseVal.width <= {width}"));
        let widest = browser.run("return document.documentElement.scrollWidth").as_u64().expect("width");
        assert!(widest <= u64::from(width), "at {width} the page is {widest} wide");
        let outside = format!(
            "return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility() && one.getBoundingClientRect().right > {width} + 1)
             .map(one => one.tagName + ' ' + one.textContent.slice(0, 40))"
        );
        assert_eq!(browser.run(&outside), json!([]), "at {width}");
        let moving = "return [...document.querySelectorAll('#map *')].some(one => getComputedStyle(one).animationName !== 'none')";
        assert_eq!(browser.run(moving), false, "something moves");
    }
    let nameless = "return [...document.querySelectorAll('button, input, select, summary, [role=button], a')]
        .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length)).map(one => one.outerHTML)";
    assert_eq!(browser.run(nameless), json!([]));
    // The focus is seen wherever it goes.
    browser.run("document.activeElement.blur(); scrollTo(0, 0)");
    for _ in 0..12 {
        browser.press(TAB);
        let outline = "const one = document.activeElement; const mark = one.matches('.stop') ? one.querySelector('.station') : one;
            const style = getComputedStyle(mark); return style.outlineStyle !== 'none' || style.strokeWidth === '5px'";
        assert_eq!(browser.run(outline), true, "no mark at {}", browser.text(FOCUSED));
    }
}
