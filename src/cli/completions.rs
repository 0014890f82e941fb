//! `sidestep completions`: what a shell needs to complete the command line.

use std::io::Write;

use clap::{Arg, Args, Command};
use clap_complete::Shell;

use super::help;

/// Print the completions of a shell.
///
/// bash reads them from /etc/bash_completion.d/sidestep or ~/.local/share/bash-completion/completions/sidestep, zsh as _sidestep
/// from a folder of its fpath, fish from ~/.config/fish/completions/sidestep.fish.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints them.
///
/// # Errors
/// When the output cannot be written.
pub fn run(args: &CompletionsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(help::command()), "sidestep", &mut script);
    Ok(out.write_all(&script)?)
}

/// The command line without the commands that are not shown, which scripts would offer.
fn shown(all: Command) -> Command {
    let shown: Vec<Command> = all.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
    let arguments: Vec<Arg> = all.get_arguments().cloned().collect();
    let command = Command::new("sidestep").version(env!("CARGO_PKG_VERSION")).args(arguments).subcommands(shown);
    command.about(all.get_about().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_commands_below_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            run(&CompletionsArgs { shell }, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["next-hop", "lookup", "metrics", "version"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
            assert!(!script.contains("lab-guard"), "{shell}: what is hidden is not offered");
        }
    }
}
