//! What `--help` says holds: examples work in a clone of the repository, exit codes are those that are written down.

use std::process::{Command, Output};

use sidestep::cli::help::EXAMPLES;

fn sidestep(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("SIDESTEP_LOG")
        .env_remove("SIDESTEP_CONTROL")
        .env_remove("COLUMNS");
    command.args(arguments).output().expect("run")
}

/// Commands that need privileges, or a running node, also with a document.
const OTHERS: [&str; 6] = ["apply", "bench null", "demo", "lab up", "lab down", "run"];

#[test]
fn examples_on_documents_and_catalogues_of_the_repository_work() {
    let mut tried = 0;
    for (command, examples) in EXAMPLES.iter().filter(|(command, _)| !OTHERS.contains(command)) {
        for (_, example) in examples.iter().filter(|(_, example)| example.contains("config/")) {
            let Output { status, stdout, stderr } = sidestep(&example.split(' ').collect::<Vec<_>>());
            let errors = String::from_utf8_lossy(&stderr);
            assert!(status.success(), "{command}: {example}: {errors}");
            assert!(!stdout.is_empty(), "{example} says something");
            tried += 1;
        }
    }
    assert!(tried >= 12, "{tried} examples");
}

#[test]
fn exit_codes_are_as_help_says() {
    let code = |arguments: &[&str]| sidestep(arguments).status.code();
    assert_eq!(code(&["tags", "lookup", "20.60.1.10"]), Some(0));
    // A packet that would be dropped is an answer like any other.
    let dropped = ["explain", "--from", "vm1", "--to", "10.1.1.200", "-c", "config/demo.toml"];
    assert_eq!(code(&dropped), Some(0));
    assert_eq!(code(&["check", "-c", "no-such-file.toml"]), Some(1));
    assert_eq!(code(&["check"]), Some(2));
    assert_eq!(code(&["no-such-command"]), Some(2));
}

#[test]
fn help_of_every_command_has_its_examples() {
    for (command, examples) in EXAMPLES {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let help = String::from_utf8(sidestep(&arguments).stdout).expect("text");
        for (_, example) in *examples {
            assert!(help.contains(&format!("  sidestep {example}\n")), "{command}: {help}");
        }
    }
}
