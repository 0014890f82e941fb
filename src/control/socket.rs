//! The control socket as a file: where it is, how it is taken, and how a second node on it is refused.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Where the socket is if neither command, environment nor document says.
pub const DEFAULT_SOCKET: &str = "/run/sidestep/sidestep.sock";

/// The environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "SIDESTEP_CONTROL";

/// Who may talk to a node: the owner and the group of its socket.
const MODE: u32 = 0o660;

/// Where the socket is: what the command line says (clap reads [`SOCKET_VARIABLE`] there), else the document, else
/// [`DEFAULT_SOCKET`].
pub fn location(argument: Option<&Path>, document: Option<&Path>) -> PathBuf {
    argument.or(document).unwrap_or(Path::new(DEFAULT_SOCKET)).to_owned()
}

/// Why the socket could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A node answers on it.
    #[error("another node runs on {}: stop it, or give this one a socket of its own with --control", .0.display())]
    Taken(PathBuf),
    /// There is a file of another kind.
    #[error("{} exists and is no socket: remove it, or name another place with --control", .0.display())]
    NoSocket(PathBuf),
    /// The file system refuses.
    #[error("cannot make the control socket {}; --control names another place", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound socket whose file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    /// Held as long as the socket is: two nodes that start together see each other here, before either listens.
    _lock: fs::File,
}

impl ControlSocket {
    /// Takes the socket with the permissions 0660, in a folder that is made if it is missing. A file that a dead node
    /// left is replaced.
    ///
    /// # Errors
    /// [`SocketError`], which says who is in the way.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let lock = lock(&lock_path(path)).map_err(failed)?.ok_or_else(|| SocketError::Taken(path.to_owned()))?;
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::Taken(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for who serves it.
    ///
    /// # Errors
    /// When the system has no descriptor for it.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing can be done about a file that is gone already. The lock file goes while the lock is still held.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

/// Locks a file that is made if it is missing; none where another process holds it.
fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    loop {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // A node that ended between the two calls took the file's name with it: then the lock is on nothing.
        let ours = file.metadata()?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(file)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_on_the_same_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/node.sock");
        let first = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::Taken(_)), "{error}");
        assert!(error.to_string().starts_with("another node runs on "), "{error}");

        drop(first);
        assert_eq!(fs::read_dir(folder.path().join("made")).unwrap().count(), 0, "socket and lock are gone");
        ControlSocket::bind(&path).unwrap();
    }

    #[test]
    fn a_socket_that_a_dead_node_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let socket = ControlSocket::bind(&path).unwrap();
        assert!(UnixStream::connect(socket.path()).is_ok());
    }

    #[test]
    fn a_socket_that_somebody_else_listens_on_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::Taken(_))));
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn another_kind_of_file_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn the_command_line_wins_over_the_document() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        assert_eq!(location(Some(a), Some(b)), a);
        assert_eq!(location(None, Some(b)), b);
        assert_eq!(location(None, None), Path::new(DEFAULT_SOCKET));
    }
}
