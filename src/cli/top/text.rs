//! One look as plain text, for scripts and logs.

use super::rates::{Seen, bits, scaled};
use crate::cli::table;

/// The look, and the flows of it that are to be shown.
pub(super) fn text(seen: &Seen, flows: &[&super::rates::FlowRate]) -> String {
    let mut paths = table(["Path", "Rate", "Packets/s", "Flows"]);
    for path in &seen.paths {
        paths.add_row([
            path.path.to_owned(),
            bits(path.rate.bits_per_second),
            scaled(path.rate.packets_per_second, ""),
            path.flows.to_string(),
        ]);
    }
    let mut ports = table(["Port", "Kind", "In", "Out"]);
    for port in &seen.ports {
        let rates = [port.received, port.sent].map(|rate| bits(rate.bits_per_second));
        ports.add_row([vec![port.port.clone(), port.kind.clone()], rates.to_vec()].concat());
    }
    let mut drops = table(["Drops", "Packets/s", "In all"]);
    for drop in &seen.drops {
        drops.add_row([drop.reason.clone(), scaled(drop.packets_per_second, ""), drop.packets.to_string()]);
    }
    let mut rows = table(["Path", "Protocol", "Source", "Destination", "Source seen", "To", "Rate", "Packets/s"]);
    for rate in flows {
        let flow = &rate.flow;
        let presented = if flow.presented == flow.source { "=" } else { &flow.presented };
        rows.add_row([
            rate.path.clone(),
            flow.protocol.clone(),
            flow.source.clone(),
            flow.destination.clone(),
            presented.to_owned(),
            flow.egress.clone(),
            bits(rate.rate.bits_per_second),
            scaled(rate.rate.packets_per_second, ""),
        ]);
    }
    let mut text = format!("{}\n\n{}\n", paths.trim_fmt(), ports.trim_fmt());
    if !seen.drops.is_empty() {
        text.push_str(&format!("\n{}\n", drops.trim_fmt()));
    }
    if !flows.is_empty() {
        text.push_str(&format!("\n{}\n", rows.trim_fmt()));
    }
    let noun = if seen.flows_total == 1 { "flow" } else { "flows" };
    let (shown, total) = (flows.len(), seen.flows_total);
    text.push_str(&format!("\n{shown} of {total} {noun}"));
    if seen.is_sample() {
        text.push_str(&format!("; rates of flows and paths are a sample of {}", seen.flows_known));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::rates::tests::answers;
    use crate::control::top::TopAnswer;

    #[test]
    fn a_look_is_tables() {
        let [before, now] = answers();
        let seen = Seen::of(Some(&before), &now);
        let flows: Vec<_> = seen.flows.iter().take(3).collect();
        assert_eq!(
            text(&seen, &flows),
            "\
Path      Rate       Packets/s  Flows
endpoint  1.00 Gb/s  125 k      1
tunnel    100 Mb/s   12.5 k     1
internet  10.0 Mb/s  1.25 k     1
inside    4.00 kb/s  0.50       1

Port     Kind     In         Out
vm1      nic      1.00 Gb/s  2.00 Gb/s
gateway  gateway  100 Mb/s   200 Mb/s

Drops       Packets/s  In all
spoofed     25         60
nsg_denied  2          104
no_route    0          7

Path      Protocol  Source          Destination       Source seen         To           Rate       Packets/s
endpoint  tcp       10.1.1.4:40000  20.60.1.10:443    =                   contosodata  1.00 Gb/s  125 k
tunnel    tcp       10.1.1.4:40000  198.51.100.80:80  =                   gateway      100 Mb/s   12.5 k
internet  tcp       10.1.1.4:40000  192.0.2.7:443     203.0.113.200:1024  internet     10.0 Mb/s  1.25 k

3 of 4 flows
"
        );
        let sample = Seen::of(Some(&before), &TopAnswer { flows_total: 1_000_000, ..now });
        let said = text(&sample, &[]);
        assert!(said.ends_with("\n0 of 1000000 flows; rates of flows and paths are a sample of 4\n"), "{said}");
    }
}
