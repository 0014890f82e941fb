//! Work inside a named network namespace.
//!
//! A thread belongs to one network namespace, so the work runs on a thread of its own that enters the namespace and ends
//! afterwards; the caller's thread never moves. Descriptors made there stay in their namespace wherever they are used.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its namespaces.
const DIRECTORY: &str = "/run/netns";

/// Why work could not be done in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The name cannot be one.
    #[error("`{0}` cannot be the name of a network namespace")]
    BadName(String),
    /// There is no such namespace.
    #[error("the network namespace `{0}` does not exist; `ip netns add {0}` makes it")]
    Missing(String),
    /// The namespace exists and could not be entered.
    #[error("cannot enter the network namespace `{name}`: {source}")]
    Enter {
        /// The namespace.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the network namespace `{name}`: {source}")]
    Thread {
        /// The namespace.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs `work` in the network namespace of a name, or in the caller's own if there is none, and returns what it returns.
///
/// # Errors
/// [`NamespaceError`]: the namespace does not exist or cannot be entered; then `work` did not run.
///
/// # Panics
/// If `work` does.
pub fn run<T: Send>(name: Option<&str>, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let Some(name) = name else { return Ok(work()) };
    let file = File::open(path(name)?).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => NamespaceError::Missing(name.to_owned()),
        _ => NamespaceError::Enter { name: name.to_owned(), source },
    })?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn_scoped(scope, move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| NamespaceError::Enter { name: name.to_owned(), source: error.into() })?;
                Ok(work())
            })
            .map_err(|source| NamespaceError::Thread { name: name.to_owned(), source })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether a namespace of the name exists.
pub fn exists(name: &str) -> bool {
    path(name).is_ok_and(|path| path.exists())
}

fn path(name: &str) -> Result<PathBuf, NamespaceError> {
    if name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(NamespaceError::BadName(name.to_owned()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_work_runs_here() {
        let here = std::thread::current().id();
        assert_eq!(run(None, || std::thread::current().id()).expect("run"), here);
    }

    #[test]
    fn a_missing_namespace_is_named_with_the_remedy() {
        let error = run(Some("ss-port-no-such"), || ()).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "the network namespace `ss-port-no-such` does not exist; `ip netns add ss-port-no-such` makes it"
        );
        assert!(!exists("ss-port-no-such"));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", ".", "..", "../1/ns/net", "a/b", "a\0b"] {
            assert!(matches!(run(Some(name), || ()), Err(NamespaceError::BadName(_))), "{name}");
        }
    }
}
