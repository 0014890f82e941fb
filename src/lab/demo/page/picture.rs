//! Both paths as a picture: the VM in its subnet, the long way round through the tunnel, and the short one over the
//! backbone. The one in use is drawn in its colour, the other is faint.

use super::{Setting, escape};

/// Which path is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tunnel,
    Endpoint,
}

impl Way {
    /// Its class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Endpoint => "endpoint",
        }
    }
}

/// The picture, with the source address that the service sees.
pub(super) fn draw(setting: &Setting, way: Way, source: &str) -> String {
    let class = way.class();
    let (tunnel, endpoint) = match way {
        Way::Tunnel => ("on", "off"),
        Way::Endpoint => ("off", "on"),
    };
    let [vm, vm_address, subnet, site, site_address, service, service_address] = [
        &setting.nic,
        &setting.private_address,
        &setting.subnet,
        "on-premises",
        &setting.public_address,
        &setting.resource,
        &setting.service_address,
    ]
    .map(escape);
    let source = escape(source);
    let summary = match way {
        Way::Tunnel => format!(
            "{vm} reaches {service} through the tunnel, the on-premises site and the internet; the service sees {source}"
        ),
        Way::Endpoint => format!("{vm} reaches {service} over the backbone; the service sees {source}"),
    };
    // An arrow's head needs a name, and names hold for the whole page.
    let head = |on: &str, name: &str| {
        if on == "on" { format!(" marker-end=\"url(#head-{class}-{name})\"") } else { String::new() }
    };
    let marker = |name: &str| {
        format!(
            "<marker id=\"head-{class}-{name}\" viewBox=\"0 0 10 10\" refX=\"8\" refY=\"5\" markerWidth=\"4\" markerHeight=\"4\" \
             orient=\"auto\"><path class=\"head {name}\" d=\"M0 0L10 5L0 10Z\"/></marker>"
        )
    };
    let markers = marker("tunnel") + &marker("endpoint");
    format!(
        r##"<svg class="picture" viewBox="0 22 490 386" role="img" aria-label="{summary}">
<defs>{markers}</defs>
<rect class="subnet" x="6" y="244" width="180" height="124" rx="14"/>
<text class="small" x="12" y="390">subnet {subnet}</text>
<path class="way tunnel {tunnel} pipe" d="M96 258V112"/>
<path class="way tunnel {tunnel}" d="M96 258V112"/>
<path class="way tunnel {tunnel}" d="M171 72H302"{head_long}/>
<path class="way tunnel {tunnel}" d="M382 102V250"{head_long}/>
<path class="way endpoint {endpoint}" d="M171 306H284"{head_short}/>
<g class="node {site_on}"><rect x="21" y="36" width="150" height="72" rx="12"/><text x="96" y="68">{site}</text><text class="address" x="96" y="92">{site_address}</text></g>
<g class="node {site_on}"><rect x="313" y="36" width="138" height="66" rx="33"/><text x="382" y="75">internet</text></g>
<g class="node"><rect x="21" y="258" width="150" height="96" rx="12"/><text x="96" y="290">{vm}</text><text class="address" x="96" y="314">{vm_address}</text><text class="small middle" x="96" y="338">behind Sidestep</text></g>
<g class="node service"><rect x="292" y="258" width="182" height="96" rx="12"/><text x="382" y="290">{service}</text><text class="address" x="382" y="314">{service_address}</text><text class="small middle" x="382" y="338">{kind}</text></g>
<text class="label tunnel {tunnel}" x="116" y="150">forced tunnel</text>{tunnel_lines}
<text class="label endpoint {endpoint} middle" x="238" y="292">backbone</text>
<g class="seen {class}"><rect x="281" y="366" width="204" height="34" rx="17"/><text x="383" y="388">sees {source}</text></g>
</svg>"##,
        head_long = head(tunnel, "tunnel"),
        head_short = head(endpoint, "endpoint"),
        tunnel_lines = setting
            .tunnel
            .split(", ")
            .enumerate()
            .map(|(line, text)| format!(
                "<text class=\"small {tunnel}\" x=\"116\" y=\"{}\">{}</text>",
                172 + 20 * line,
                escape(text)
            ))
            .collect::<String>(),
        site_on = if way == Way::Tunnel { "" } else { "faint" },
        kind = escape(&setting.service),
    )
}
