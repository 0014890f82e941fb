//! What a lab has made, in a file that is written before each step, so that exactly that is removed again, also after a
//! crash.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::process::ProcessId;

/// Where labs are remembered. It is gone after a reboot, as the labs are.
const FOLDER: &str = "/run/sidestep/lab";

/// Something that a lab made. Removed in the opposite order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Step {
    /// A network namespace.
    Namespace {
        /// Its name.
        name: String,
        /// The inode behind its name; none between announcing the step and doing it.
        inode: Option<u64>,
    },
    /// A folder, removed when it is empty.
    Folder {
        /// Its path.
        path: PathBuf,
    },
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// A folder of the lab's own with whatever is in it.
    Tree {
        /// Its path, below the folder of labs.
        path: PathBuf,
    },
    /// A process.
    Process {
        /// What it does, for people.
        what: String,
        /// Which it is.
        id: ProcessId,
    },
}

/// A lab and what it has made so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Its name, also the file's.
    pub(crate) name: String,
    /// The process that builds it or, for a demo, that it ends with; none for a lab that stands by itself.
    pub(crate) owner: Option<ProcessId>,
    /// The document that it was built from.
    pub(crate) document: PathBuf,
    /// What it has made, in this order.
    pub(crate) steps: Vec<Step>,
}

/// Why the memory of a lab cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The name would not be a file's name.
    #[error("`{0}` cannot be the name of a lab: letters, digits, `.`, `-` and `_` can, 64 at most")]
    BadName(String),
    /// There is a lab of this name.
    #[error("the lab `{name}` is there already; `sidestep lab down --name {name}` removes it")]
    Exists {
        /// The name.
        name: String,
    },
    /// A lab of this name is being built, or its demo runs.
    #[error("the lab `{name}` is in use by process {pid}")]
    Busy {
        /// The name.
        name: String,
        /// The process.
        pid: u32,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl State {
    /// Begins a lab that belongs to this process.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Exists`] where another of the name is remembered, a crashed one included.
    pub(crate) fn begin(name: &str, document: &Path) -> Result<Self, StateError> {
        let path = path(name)?;
        let failed = |source| StateError::File { path: path.clone(), source };
        let owner = ProcessId::own().map_err(failed)?;
        let state =
            Self { name: name.to_owned(), owner: Some(owner), document: document.to_owned(), steps: Vec::new() };
        fs::create_dir_all(FOLDER).map_err(failed)?;
        // Written whole beside its place and linked there: whoever is second, and whoever reads, sees all or nothing.
        let draft = draft_path(&path);
        state.write(&draft).map_err(failed)?;
        let linked = fs::hard_link(&draft, &path);
        // The draft has done its work either way.
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => Ok(state),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(match Self::load(name)? {
                Some(State { owner: Some(owner), .. }) if owner.is_alive() => {
                    StateError::Busy { name: name.to_owned(), pid: owner.pid }
                }
                _ => StateError::Exists { name: name.to_owned() },
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// The lab of a name, if there is one.
    ///
    /// # Errors
    /// [`StateError`]
    pub(crate) fn load(name: &str) -> Result<Option<Self>, StateError> {
        let path = path(name)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::File { path, source }),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| StateError::File { path, source: error.into() })
    }

    /// The names of all labs, sorted.
    ///
    /// # Errors
    /// [`StateError`]
    pub(crate) fn names() -> Result<Vec<String>, StateError> {
        let failed = |source| StateError::File { path: PathBuf::from(FOLDER), source };
        let entries = match fs::read_dir(FOLDER) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_string_lossy().strip_suffix(".json").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Remembers a step; called before it is done.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub(crate) fn announce(&mut self, step: Step) -> Result<(), StateError> {
        self.steps.push(step);
        self.save()
    }

    /// Remembers which namespace came to be by the step that announced it.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub(crate) fn namespace_made(&mut self, made: &str) -> Result<(), StateError> {
        for step in &mut self.steps {
            if let Step::Namespace { name, inode } = step
                && name == made
            {
                *inode = namespace_inode(made);
            }
        }
        self.save()
    }

    /// Forgets a step that has been undone.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub(crate) fn undone(&mut self, step: &Step) -> Result<(), StateError> {
        self.steps.retain(|other| other != step);
        self.save()
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub(crate) fn save(&self) -> Result<(), StateError> {
        let path = path(&self.name)?;
        let draft = draft_path(&path);
        self.write(&draft)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|source| StateError::File { path: path.clone(), source })
    }

    /// Forgets the lab, whose steps are all undone.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub(crate) fn forget(&self) -> Result<(), StateError> {
        let path = path(&self.name)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StateError::File { path, source }),
        }
        // The folders go with the last lab; where something is in them, they stay.
        let folder = Path::new(FOLDER);
        let _ = fs::remove_dir(folder);
        if let Some(parent) = folder.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// The names of its namespaces in the order they were made.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Namespace { name, inode } => Some((name.as_str(), *inode)),
            _ => None,
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        File::create(path)?.write_all(&text)
    }
}

/// Taken by whoever removes a lab that is not its own, so that two do not remove the same one; held until it is dropped.
///
/// # Errors
/// [`StateError::File`]
pub(crate) fn lock() -> Result<Option<File>, StateError> {
    let failed = |source| StateError::File { path: PathBuf::from(FOLDER), source };
    match File::open(FOLDER) {
        Ok(folder) => {
            flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            Ok(Some(folder))
        }
        // Without the folder there is nothing to remove.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

/// The folder of a lab's own files.
///
/// # Errors
/// [`StateError::BadName`]
pub(crate) fn own_folder(name: &str) -> Result<PathBuf, StateError> {
    Ok(path(name)?.with_extension("d"))
}

/// The inode of the namespace behind a name.
pub(crate) fn namespace_inode(name: &str) -> Option<u64> {
    fs::metadata(Path::new(NAMESPACES).join(name)).ok().map(|data| data.ino())
}

/// Where `ip netns` keeps its namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

fn path(name: &str) -> Result<PathBuf, StateError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(good) {
        return Err(StateError::BadName(name.to_owned()));
    }
    Ok(Path::new(FOLDER).join(format!("{name}.json")))
}

fn draft_path(path: &Path) -> PathBuf {
    path.with_extension(format!("draft-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        for name in ["", "..", ".hidden", "a/b", "a b", "a\n", &"x".repeat(65)] {
            assert!(matches!(path(name), Err(StateError::BadName(_))), "{name:?}");
        }
        assert_eq!(path("demo").expect("good"), Path::new("/run/sidestep/lab/demo.json"));
        assert_eq!(own_folder("v1.2").expect("good"), Path::new("/run/sidestep/lab/v1.2.d"));
    }

    #[test]
    fn the_file_reads_as_it_was_written() {
        let id = ProcessId { pid: 7, started: 42 };
        let state = State {
            name: "demo".to_owned(),
            owner: Some(id),
            document: PathBuf::from("demo.toml"),
            steps: vec![
                Step::Namespace { name: "vm1".to_owned(), inode: Some(4) },
                Step::Folder { path: PathBuf::from("/etc/netns/vm1") },
                Step::File { path: PathBuf::from("/etc/netns/vm1/hosts") },
                Step::Process { what: "web server".to_owned(), id },
            ],
        };
        let text = serde_json::to_string(&state).expect("writes");
        assert!(text.contains(r#"{"kind":"namespace","name":"vm1","inode":4}"#), "{text}");
        assert_eq!(serde_json::from_str::<State>(&text).expect("reads"), state);
    }
}
