//! Draining: what a gateway does before it is taken out of service. Flows that there are go on, none begins.
//!
//! A packet that would begin one is dropped without an answer, by the reason `draining`. Its sender sends it again, TCP
//! after one second, and by then it may be led to the gateway that takes over, which answers; a reset or an ICMP error would
//! end the attempt, and be taken for the service's own refusal.

use super::Node;
use crate::control::answers::DrainAnswer;

impl Node {
    /// Takes no new flows from now on, or takes them again; log and history tell it. It outlives changes of the document
    /// and of endpoints, not the process.
    pub fn drain(&self, who: &str, draining: bool) -> DrainAnswer {
        let _changing = super::lock(&self.changing);
        let changed = self.dataplane.is_draining() != draining;
        if changed {
            self.dataplane.set_draining(draining);
            self.remember(who, if draining { "drain" } else { "end the drain" }, Ok(None));
        }
        DrainAnswer { draining, changed, flows: self.dataplane.counters().flows }
    }

    /// Whether no new flows are taken.
    pub fn is_draining(&self) -> bool {
        self.dataplane.is_draining()
    }
}
