//! Signals that ask us to stop. They only raise a flag; whoever waits for something looks at it, returns
//! [`Interrupted`], and so everything that was made is removed on the ordinary way out.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The number of the signal that arrived, 0 while there was none.
static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// A signal asked us to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {}", name(*.signal))]
pub struct Interrupted {
    /// The number of the signal.
    pub signal: i32,
}

impl Interrupted {
    /// The exit code by which shells show an end by this signal.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.signal).unwrap_or(1)
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP raise the flag and do nothing else.
///
/// # Errors
/// When the system refuses the handlers.
pub(crate) fn listen() -> io::Result<()> {
    let flag = SIGNAL.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(signal, Arc::clone(flag), signal.unsigned_abs() as usize)?;
    }
    Ok(())
}

/// Fails once one of the signals has arrived.
///
/// # Errors
/// [`Interrupted`]
pub(crate) fn check() -> Result<(), Interrupted> {
    match SIGNAL.get().map_or(0, |flag| flag.load(Ordering::Relaxed)) {
        0 => Ok(()),
        signal => Err(Interrupted { signal: i32::try_from(signal).unwrap_or(SIGTERM) }),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGHUP => "SIGHUP",
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        _ => "a signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_signal_work_goes_on() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn an_interruption_is_named_and_ends_as_shells_show_it() {
        let interrupted = Interrupted { signal: SIGINT };
        assert_eq!(interrupted.to_string(), "interrupted by SIGINT");
        assert_eq!(interrupted.exit_code(), 130);
        assert_eq!(Interrupted { signal: SIGTERM }.exit_code(), 143);
    }
}
