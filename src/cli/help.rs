//! What `--help` and the man pages say beyond the arguments: examples, and exit codes.

use clap::{Command, CommandFactory};

use super::Cli;

/// What the exit code of every command says.
pub const EXIT_CODES: &[(&str, &str)] = &[
    (
        "0",
        "done; also where the answer is that a packet is dropped, and where a signal ends `run`, `trace` or `capture`",
    ),
    ("1", "failed or refused: what, where and what to do stands on stderr, with --json on stdout"),
    ("", "(`check --deny-advice` with advice, too)"),
    ("2", "the command line is wrong"),
    ("129, 130, 143", "ended by SIGHUP, Ctrl-C, SIGTERM; what was made is gone (`demo`, `lab up`)"),
];

/// A command and its examples: what each is for, and what follows `sidestep`. Those on `config/` work in a clone of the
/// repository.
pub const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "apply",
        &[
            ("What would change?", "apply -c config/demo.toml --dry-run"),
            ("Change it, all or nothing", "apply -c config/demo.toml"),
        ],
    ),
    ("bench", &[("What there is to measure against", "bench null left/eth0=10.9.1.1/24 right/eth0=10.9.2.1/24")]),
    (
        "bench null",
        &[(
            "A loop between the hosts `left` and `right` of `ip netns`",
            "bench null left/eth0=10.9.1.1/24 right/eth0=10.9.2.1/24",
        )],
    ),
    (
        "capture",
        &[
            ("What is dropped, with the reason of each", "capture --what dropped -w dropped.pcapng"),
            ("Everything of vm1, as it passes", "capture --from vm1 --both -w -"),
        ],
    ),
    (
        "check",
        &[
            ("Every mistake, and advice", "check -c config/example.toml --advice"),
            ("For CI: fail on advice, too", "check -c config/demo.toml --deny-advice"),
        ],
    ),
    ("completions", &[("What /etc/bash_completion.d/sidestep may hold", "completions bash")]),
    (
        "demo",
        &[
            ("The demo", "demo"),
            ("With a page to show to others", "demo --report demo.html"),
            ("On Azure's weekly file, as an object", "demo --tags ServiceTags_Public.json --json"),
        ],
    ),
    ("denials", &[("The last ten", "denials -n 10")]),
    ("drain", &[("Take no new flows, before a restart elsewhere", "drain"), ("Take them again", "drain --end")]),
    (
        "endpoint",
        &[
            ("Out of the tunnel", "endpoint enable spoke/workload Microsoft.Storage"),
            ("What would the way back do?", "endpoint disable spoke/workload Microsoft.Storage --dry-run"),
        ],
    ),
    (
        "flow-log",
        &[
            ("Which path flows take, live", "flow-log --follow"),
            ("Who comes to a storage account", "flow-log -f --resource contosodata"),
            ("What goes down the tunnel, for tools", "flow-log -f --path tunnel --json"),
        ],
    ),
    (
        "endpoint enable",
        &[
            (
                "Which routes would change, which connections be reset?",
                "endpoint enable spoke/workload Microsoft.Storage --dry-run",
            ),
            ("Switch it on", "endpoint enable spoke/workload Microsoft.Storage"),
        ],
    ),
    ("endpoint disable", &[("Back into the tunnel", "endpoint disable spoke/workload Microsoft.Storage")]),
    (
        "explain",
        &[
            (
                "Every stage of a packet's way, in a document",
                "explain --from vm1 --to 20.60.1.10 --port 443 -c config/demo.toml",
            ),
            ("In the running node", "explain --from vm1 --to 20.60.1.10 --protocol icmp"),
        ],
    ),
    ("flows", &[("All, as data", "flows --limit 1000000 --json")]),
    ("identity", &[("Whose address is it?", "identity decode fde4:8dd2:1a2b:1a2b:3c4d:5e6f:a01:104")]),
    (
        "identity decode",
        &[("Whose address does the service's log show?", "identity decode fde4:8dd2:1a2b:1a2b:3c4d:5e6f:a01:104")],
    ),
    (
        "lab",
        &[
            ("Build the hosts around a network", "lab up -c config/demo.toml"),
            ("Which labs are there?", "lab status"),
            ("Take them away again", "lab down -c config/demo.toml"),
        ],
    ),
    ("lab up", &[("The hosts around the network of the demo", "lab up -c config/demo.toml")]),
    ("lab down", &[("Take them away again", "lab down -c config/demo.toml")]),
    ("lab status", &[("What labs are there?", "lab status")]),
    ("man", &[("Into a folder, to be read by `man ./man1/sidestep-run.1`", "man man1")]),
    (
        "next-hop",
        &[
            (
                "Which route wins, and why the others lost",
                "next-hop --from spoke/workload --to 20.60.1.10 -c config/demo.toml",
            ),
            ("In the running node", "next-hop --from vm1 --to 20.60.1.10"),
        ],
    ),
    (
        "nsg",
        &[
            ("With every effective rule", "nsg spoke/workload -c config/example.toml"),
            ("As `az network nic list-effective-nsg` has it", "nsg spoke/workload -c config/example.toml --json"),
        ],
    ),
    (
        "routes",
        &[
            ("Effective routes, and why each loser lost", "routes spoke/workload -c config/demo.toml"),
            (
                "As `az network nic show-effective-route-table` has them",
                "routes spoke/workload -c config/demo.toml --json",
            ),
        ],
    ),
    (
        "run",
        &[
            ("Forward until Ctrl-C", "run -c config/demo.toml"),
            ("With a page in the browser that shows it", "run -c config/demo.toml --page"),
            ("With metrics, and connections survive a restart", "run -c config/demo.toml --metrics --state flows"),
        ],
    ),
    ("status", &[("What is in force, and what was counted", "status")]),
    (
        "support-bundle",
        &[
            ("Into sidestep-support.json, to be attached to a report", "support-bundle"),
            ("With addresses, to be read here", "support-bundle --addresses -o -"),
        ],
    ),
    (
        "tags",
        &[
            ("Whose address is it?", "tags lookup 20.60.1.10 --tags config/service-tags.json"),
            ("What has changed from one week to the next?", "tags diff OLDER.json NEWER.json"),
            ("Put the newer one in force on the running node", "tags apply NEWER.json"),
        ],
    ),
    ("tags apply", &[("What would the next week's file change?", "tags apply ServiceTags_Public.json --dry-run")]),
    ("tags diff", &[("What has changed from one week to the next?", "tags diff OLDER.json NEWER.json")]),
    ("tags list", &[("What tags are there?", "tags list --tags config/service-tags.json")]),
    ("tags lookup", &[("Whose address is it?", "tags lookup 20.60.1.10 --tags config/service-tags.json")]),
    ("tags show", &[("The prefixes of a tag", "tags show Storage.WestEurope --tags config/service-tags.json")]),
    ("tags stats", &[("How large is it?", "tags stats --tags config/service-tags.json")]),
    (
        "top",
        &[
            ("Live, until q", "top"),
            ("What takes the tunnel, by packets", "top --path tunnel --sort packets"),
            ("One look for a script", "top --once --limit 5"),
            ("The same as an object", "top --json"),
        ],
    ),
    (
        "trace",
        &[
            ("The next ten packets of vm1, and how each is decided", "trace --from vm1"),
            ("With replies, as data", "trace --from vm1 --to 20.60.1.10 --both -n 100 --json"),
        ],
    ),
    (
        "verify",
        &[(
            "Do the network security groups let it pass, and by which rule?",
            "verify --from vm1 --to 20.60.1.10 --direction outbound",
        )],
    ),
];

/// The command line with all that `--help` shows.
pub fn command() -> Command {
    with_examples(Cli::command().after_long_help(exit_codes()), "")
}

fn exit_codes() -> String {
    let codes: String = EXIT_CODES.iter().map(|(code, what)| format!("\n  {code:<15}{what}")).collect();
    format!("Exit codes:{codes}")
}

/// Adds the examples of a command and of those below it; `--help` and the man page also have the exit codes.
fn with_examples(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = names.iter().fold(command, |command, name| {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |below| with_examples(below, &path))
    });
    match EXAMPLES.iter().find(|(name, _)| *name == path) {
        Some((_, examples)) => {
            let text = examples.iter().map(|(what, example)| format!("\n  # {what}\n  sidestep {example}"));
            let examples = format!("Examples:{}", text.collect::<String>());
            let long = format!("{examples}\n\n{}", exit_codes());
            command.after_help(examples).after_long_help(long)
        }
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of all commands that are shown, groups too, as they are typed.
    fn shown(command: &Command, path: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let path = format!("{path} {}", below.get_name()).trim().to_owned();
            shown(below, &path, found);
            found.push(path);
        }
    }

    #[test]
    fn every_command_has_examples_and_every_example_is_of_its_command() {
        let mut found = Vec::new();
        shown(&command(), "", &mut found);
        found.sort();
        let mut named: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        assert_eq!(found, named);
        for (name, examples) in EXAMPLES {
            assert!(!examples.is_empty(), "{name}");
            for (what, example) in *examples {
                // A line of 80 columns that can be copied.
                assert!("  sidestep ".len() + example.len() <= 80 && what.len() < 76, "{example}");
                assert!(!what.is_empty() && example.starts_with(&format!("{name} ")) || example == name, "{example}");
            }
        }
    }

    #[test]
    fn every_example_is_a_good_command_line() {
        for (_, example) in EXAMPLES.iter().flat_map(|(_, examples)| *examples) {
            let words = std::iter::once("sidestep").chain(example.split(' '));
            if let Err(error) = command().try_get_matches_from(words) {
                panic!("{example}: {error}");
            }
        }
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let mut command = command();
        command.build();
        let help = command.find_subcommand_mut("tags").unwrap().find_subcommand_mut("lookup").unwrap().render_help();
        assert!(
            help.to_string().contains("Examples:\n  # Whose address is it?\n  sidestep tags lookup 20.60."),
            "{help}"
        );
        for path in ["tags", "lab", "lab up", "support-bundle"] {
            let found = path.split(' ').fold(&mut command, |found, name| found.find_subcommand_mut(name).unwrap());
            let help = found.render_long_help().to_string();
            assert!(help.contains("Examples:\n  # ") && help.contains("\n\nExit codes:\n  0 "), "{help}");
        }
        let help = command.render_long_help().to_string();
        assert!(
            help.contains("Exit codes:\n  0 ") && help.contains("\n  2              the command line is wrong"),
            "{help}"
        );
    }
}
