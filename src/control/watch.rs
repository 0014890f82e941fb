//! What tells one state of a file from another, for reloading the catalogue when it changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Identity, size and times of a file at one moment. Replacing a file by a rename changes the inode, writing it changes
/// the time or the size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// The state of a file now.
    ///
    /// # Errors
    /// When the file is missing or may not be seen.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { device: file.dev(), inode: file.ino(), size: file.len(), modified: file.modified().ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_and_replacing_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags.json");
        fs::write(&path, "a").unwrap();
        let first = Stamp::of(&path).unwrap();
        assert_eq!(first, Stamp::of(&path).unwrap());
        fs::write(&path, "ab").unwrap();
        let second = Stamp::of(&path).unwrap();
        assert_ne!(first, second);
        fs::write(folder.path().join("new"), "ab").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(second, Stamp::of(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(Stamp::of(&path).is_err());
    }
}
