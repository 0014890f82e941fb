//! When to say that there are nearly as many flows as there may be: once when a count gets above the mark, and again only
//! after it has been well below it, so that a count that swings around the mark does not fill the log.

use std::collections::BTreeSet;

use crate::snapshot::PortId;

/// Above this part of its limit a count is called nearly full.
const NEARLY_FULL_PERCENT: u64 = 80;

/// Below this part of its limit it may be called so again.
const RELIEVED_PERCENT: u64 = 70;

/// Whether a count is above 80 % of its limit.
pub(crate) fn is_nearly_full(used: u32, limit: u32) -> bool {
    u64::from(used) * 100 > u64::from(limit) * NEARLY_FULL_PERCENT
}

fn is_relieved(used: u32, limit: u32) -> bool {
    u64::from(used) * 100 < u64::from(limit) * RELIEVED_PERCENT
}

/// One count: whether it was called nearly full, and has not been relieved since.
#[derive(Debug, Default)]
struct Mark(bool);

impl Mark {
    /// True where it is to be said.
    fn crosses(&mut self, used: u32, limit: u32) -> bool {
        let said = self.0;
        self.0 = is_nearly_full(used, limit) || said && !is_relieved(used, limit);
        self.0 && !said
    }
}

/// The counts of a node.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    node: Mark,
    /// Ports that were called nearly full and have not been relieved since.
    ports: BTreeSet<PortId>,
}

impl Fullness {
    /// Looks at the counts: flows of the node, those of each port, largest first, and the limits of the node and of a
    /// NIC. Gives what there is to say, naming up to `top` owners.
    pub(crate) fn look(
        &mut self,
        used: u32,
        owners: &[(PortId, u32)],
        (limit, limit_per_nic): (u32, u32),
        top: usize,
        name: impl Fn(PortId) -> String,
    ) -> Vec<String> {
        let mut said = Vec::new();
        if self.node.crosses(used, limit) {
            let most: Vec<String> =
                owners.iter().take(top).map(|(port, flows)| format!("{} {flows}", name(*port))).collect();
            said.push(format!("the node has {used} of {limit} flows; most of them: {}", most.join(", ")));
        }
        // A port that is not among the owners has none.
        let before = std::mem::take(&mut self.ports);
        for (port, flows) in owners {
            let mut mark = Mark(before.contains(port));
            if mark.crosses(*flows, limit_per_nic) {
                said.push(format!("{} has {flows} of the {limit_per_nic} flows of a NIC", name(*port)));
            }
            if mark.0 {
                self.ports.insert(*port);
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_called_full_once_until_it_was_relieved() {
        let mut mark = Mark::default();
        let said: Vec<u32> =
            [80, 81, 82, 79, 81, 70, 81, 69, 80, 81, 100].into_iter().filter(|used| mark.crosses(*used, 100)).collect();
        assert_eq!(said, [81, 81], "at first, and after it was at 69");
        assert!(!Mark::default().crosses(0, 0), "nothing of nothing");
        assert!(Mark::default().crosses(u32::MAX, u32::MAX), "no overflow");
    }

    #[test]
    fn node_and_ports_are_told_apart_and_named() {
        let mut fullness = Fullness::default();
        let mut look = |used, owners: &[(u16, u32)]| {
            let owners: Vec<_> = owners.iter().map(|(port, flows)| (PortId(*port), *flows)).collect();
            fullness.look(used, &owners, (1000, 500), 2, |port| format!("vm{}", port.0))
        };
        assert_eq!(look(700, &[(1, 400), (2, 300)]), [""; 0], "80 % is not above 80 %");
        assert_eq!(look(701, &[(1, 401), (2, 300)]), ["vm1 has 401 of the 500 flows of a NIC"]);
        assert_eq!(
            look(852, &[(2, 420), (1, 402), (3, 30)]),
            ["the node has 852 of 1000 flows; most of them: vm2 420, vm1 402", "vm2 has 420 of the 500 flows of a NIC"]
        );
        assert_eq!(look(790, &[(1, 401), (2, 389)]), [""; 0]);
        assert_eq!(look(350, &[(2, 350)]), [""; 0], "vm1 has none any more");
        assert_eq!(look(751, &[(1, 401), (2, 350)]), ["vm1 has 401 of the 500 flows of a NIC"]);
        assert_eq!(
            look(802, &[(2, 402), (1, 400)]),
            ["the node has 802 of 1000 flows; most of them: vm2 402, vm1 400"]
        );
    }
}
