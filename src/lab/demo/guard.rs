//! Cleans up behind a demo that was killed: a process of its own that waits for the demo's end and then removes what the
//! demo left, which after an ordinary end is nothing.

use std::io::{self, Read};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::lab::build::remove_stale;
use crate::lab::command::{CommandError, Tool};
use crate::lab::state::State;

/// How long the guard waits for the demo's process to end after its pipe has closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guard at work.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    /// Starts the guard of the lab of a name.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(name: &str) -> Result<Self, CommandError> {
        let tool = Tool::own_program()?.words("lab-guard --name").word(name);
        let child = tool.spawn(Stdio::piped(), Stdio::null(), Stdio::inherit())?;
        Ok(Self { child })
    }

    /// Tells the guard that the demo has ended, and waits for it.
    pub(super) fn dismiss(&mut self) {
        drop(self.child.stdin.take());
        // It has nothing to do any more; if it cannot be waited for, it is gone.
        let _ = self.child.wait();
    }
}

/// Is the guard: waits until stdin closes, which it does when the demo ends, however that happens.
///
/// # Errors
/// What cannot be removed.
pub fn guard(name: &str) -> Result<(), LabError> {
    // An error would mean that there is no demo to wait for.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let until = Instant::now() + PATIENCE;
    while State::load(name)?.is_some_and(|state| state.owner.is_some_and(|owner| owner.is_alive())) {
        // It removes its lab itself, or is about to die.
        if Instant::now() >= until {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    remove_stale(name).map(drop)
}
