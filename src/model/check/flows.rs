//! Checks `[flows]`: how many there may be, and how long they live.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::Context;
use crate::model::document;
use crate::model::network::{FlowLifetimes, Flows};
use crate::model::quantity::Lifetime;

/// Flows of one node: what its tables have numbers and memory for.
const LIMIT: RangeInclusive<i64> = 1..=1 << 24;
/// How long a flow may live: a timer's tick at least, and a day, after which nobody waits for a reply.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Checks `[flows]`.
pub(super) fn flows(context: Context<'_>) -> Flows {
    let Some(written) = &context.document.flows else { return Flows::default() };
    let written = written.get_ref();
    let number = |limit: &Option<Spanned<i64>>, what, default| {
        context.integer(limit, what, LIMIT).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(default)
    };
    let default = Flows::default();
    Flows {
        limit: number(&written.limit, "limit", default.limit),
        limit_per_nic: number(&written.limit_per_nic, "limit_per_nic", default.limit_per_nic),
        lifetimes: lifetimes(context, &written.lifetimes),
    }
}

/// Checks lifetimes, of the node or of a NAT gateway.
pub(super) fn lifetimes(context: Context<'_>, written: &Option<Spanned<document::Lifetimes>>) -> FlowLifetimes {
    let Some(written) = written else { return FlowLifetimes::default() };
    let written = written.get_ref();
    let checked = |lifetime: &Option<Spanned<Lifetime>>, what| context.lifetime(lifetime, what, LIFETIME);
    FlowLifetimes {
        icmp: checked(&written.icmp, "icmp"),
        udp: checked(&written.udp, "udp"),
        tcp_opening: checked(&written.tcp_opening, "tcp_opening"),
        tcp_established: checked(&written.tcp_established, "tcp_established"),
        tcp_closing: checked(&written.tcp_closing, "tcp_closing"),
        tcp_closed: checked(&written.tcp_closed, "tcp_closed"),
        tcp_reset: checked(&written.tcp_reset, "tcp_reset"),
        port_rest: checked(&written.port_rest, "port_rest"),
        port_rest_half_open: checked(&written.port_rest_half_open, "port_rest_half_open"),
    }
}

impl Context<'_> {
    /// A duration in a range, or a mistake.
    pub(super) fn lifetime(
        self,
        written: &Option<Spanned<Lifetime>>,
        what: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let written = written.as_ref()?;
        let duration = written.get_ref().0;
        if range.contains(&duration) {
            return Some(duration);
        }
        self.report.mistake_with_help(
            &written.span(),
            format!("`{what}` is out of range: {} s", duration.as_secs_f64()),
            format!("write a duration from {} to {}", shown(*range.start()), shown(*range.end())),
        );
        None
    }
}

/// A duration of whole seconds in its largest unit.
fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}
