//! `sidestep man`: the man pages.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::help;

/// Write the man pages, one for each command, into a folder.
///
/// `man` finds them where the folder is called man1 and lies beside the others, as /usr/local/share/man/man1 does; any page can be
/// read where it is: `man ./sidestep-run.1`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder; it is made if it is not there.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Writes them.
///
/// # Errors
/// When the folder cannot be made or written.
pub fn run(args: &ManArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let ManArgs { folder } = args;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    clap_mangen::generate_to(help::command(), folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    Ok(writeln!(out, "man pages in {}", folder.display())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_with_its_examples() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("share/man1");
        let mut said = Vec::new();
        run(&ManArgs { folder: inside.clone() }, &mut said).unwrap();
        let page = |name: &str| fs::read_to_string(inside.join(name)).unwrap();
        assert!(page("sidestep.1").contains("the command line is wrong"), "exit codes");
        let lookup = page("sidestep-tags-lookup.1");
        assert!(lookup.contains("sidestep tags lookup 20.60.1.10"), "{lookup}");
        assert!(lookup.contains("the command line is wrong"), "exit codes: {lookup}");
        assert!(page("sidestep-lab.1").contains("sidestep lab down"), "groups have examples");
        assert!(!inside.join("sidestep-lab-guard.1").exists(), "what is hidden stays so");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = file.path().join("man1");
        let error = run(&ManArgs { folder: folder.clone() }, &mut Vec::new()).unwrap_err();
        assert!(format!("{error}").contains(&folder.display().to_string()), "{error}");
    }
}
