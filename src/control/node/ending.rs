//! The end of a node: of its workers, what they leave to the next process, and the flow log.

use std::path::Path;

use super::flow_log::regions;
use super::{Current, Node, lock};
use crate::control::state::{self, InForce, StateError};
use crate::path::record::Record;
use crate::worker::Stopped;

impl Node {
    /// Ends the workers, writes their flows to the state file if they go on in another process, and ends the flow log: who
    /// follows is told all of it, and that it ends. Nothing is forwarded afterwards. The other process waits for the state,
    /// so that comes first, however long a collector takes. Does nothing the second time.
    pub fn stop(&self, state: Option<&Path>) {
        let mut saved = lock(&self.saved);
        if saved.is_none() {
            let mut stopped = self.dataplane.stop();
            let current = self.current();
            *saved = Some(state.map(|path| self.write_state(path, &current, &stopped)));
            let generation = current.snapshot.generation;
            let rest = |visit: &mut dyn FnMut(Record)| stopped.log_rest(state.is_some(), visit);
            self.flow_log.end(&*self.dataplane, generation, || regions(&current), rest);
        }
    }

    /// Ends the node as [`Node::stop`] does, and gives how many flows are in the state file.
    ///
    /// # Errors
    /// [`StateError`]; the workers have ended all the same.
    pub fn save(&self, path: &Path) -> Result<usize, StateError> {
        self.stop(Some(path));
        lock(&self.saved).as_mut().and_then(Option::take).unwrap_or(Ok(0))
    }

    /// Writes flows, and what is in force, to the state file.
    fn write_state(&self, path: &Path, current: &Current, stopped: &Stopped) -> Result<usize, StateError> {
        let in_force = InForce {
            document: &current.document.text,
            switched: &current.switched,
            catalogue: current.catalogue.overriding().filter(|path| Some(*path) != self.overrides.tags.as_deref()),
            snapshot: &current.snapshot,
        };
        state::write(path, in_force, stopped)
    }
}
