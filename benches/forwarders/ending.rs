//! How threads that go on until they are told to end are told, whatever happens to who tells them.

use std::sync::atomic::{AtomicBool, Ordering};

/// What such a thread looks at.
#[derive(Debug, Default)]
pub(crate) struct Ending(AtomicBool);

impl Ending {
    /// Whether to end.
    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The end comes when this goes: without it a scope would wait for its threads for ever when the one that owns it panics.
    pub(crate) fn guard(&self) -> EndingGuard<'_> {
        EndingGuard(self)
    }
}

/// Whoever has it lets threads go on.
#[derive(Debug)]
pub(crate) struct EndingGuard<'a>(&'a Ending);

impl Drop for EndingGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
