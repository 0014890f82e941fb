//! `sidestep lab`: the hosts around a network, as namespaces.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::write_json;
use crate::lab::serve::{Options, Refusal, Site, serve};
use crate::lab::{self, LabError, Status};
use crate::model;

/// Build or remove the hosts around a network: VMs, on-premises, internet and services as network namespaces.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What can be done with a lab.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Build the lab of a document; `sidestep run -c FILE` then puts the network between its namespaces.
    Up {
        /// The network document.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Name of the lab; the document's file name without its ending if not given.
        #[arg(long)]
        name: Option<String>,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a lab: exactly what `up` made, also after a crash.
    Down {
        /// The network document that the lab was built from.
        #[arg(short, long, value_name = "FILE", required_unless_present = "name")]
        config: Option<PathBuf>,
        /// Name of the lab.
        #[arg(long)]
        name: Option<String>,
    },
    /// Show a lab, or all.
    Status {
        /// The network document that the lab was built from.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Name of the lab.
        #[arg(long)]
        name: Option<String>,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of the lab's web server, which `sidestep lab up` starts in namespaces.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The namespace that the process is in; it ends when that name is removed.
    #[arg(long)]
    pub netns: String,
    /// Who answers on an address or for a host name; may be repeated.
    #[arg(long = "answer", value_name = "ADDRESS|HOST=NAME")]
    pub answers: Vec<Site>,
    /// Where a service answers whom its firewall denies; may be repeated.
    #[arg(long = "refuse", value_name = "ADDRESS:PORT=http|sql")]
    pub refusals: Vec<Refusal>,
    /// The addresses of callers that come over an endpoint; may be repeated.
    #[arg(long = "endpoint-source", value_name = "PREFIX")]
    pub endpoint_sources: Vec<IpNet>,
    /// The folder of the lab, with its certificate authority, for the server's log.
    #[arg(long)]
    pub folder: PathBuf,
}

/// Builds, removes or shows a lab.
///
/// # Errors
/// A document with mistakes, or [`LabError`].
pub fn run(args: &LabArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        LabCommand::Up { config, name, json } => up(config, name.as_deref(), *json, out),
        LabCommand::Down { config, name } => {
            let name = lab_name(name.as_deref(), config.as_deref())?.unwrap_or_default();
            let removed = lab::down(&name)?;
            writeln!(out, "removed the lab `{name}`: {}", counted(removed.namespaces.len(), "namespace"))?;
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Status { config, name, json } => {
            let labs = lab::status(lab_name(name.as_deref(), config.as_deref())?.as_deref())?;
            if *json {
                write_json(out, &labs)?;
            } else if labs.is_empty() {
                writeln!(out, "there is no lab")?;
            } else {
                labs.iter().try_for_each(|lab| write_status(out, lab))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the lab's web server; says `ready` when it listens.
///
/// # Errors
/// When it cannot listen.
pub fn run_serve(args: &ServeArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options = Options {
        netns: args.netns.clone(),
        sites: args.answers.clone(),
        refusals: args.refusals.clone(),
        endpoint_sources: args.endpoint_sources.clone(),
        folder: args.folder.clone(),
    };
    serve(options, || {
        writeln!(out, "ready")?;
        out.flush()
    })
    .with_context(|| format!("the web server in `{}`", args.netns))?;
    Ok(ExitCode::SUCCESS)
}

fn up(config: &Path, name: Option<&str>, json: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(config).with_context(|| config.display().to_string())?;
    // What tags a catalogue has does not matter to a lab.
    let network = model::parse(&text, config, None)?;
    let name = lab_name(name, Some(config))?.unwrap_or_default();
    let document = config.canonicalize().with_context(|| config.display().to_string())?;
    let status = match lab::up(&name, &document, &network) {
        Ok(status) => status,
        Err(error) => return interrupted_or(error),
    };
    if json {
        write_json(out, &status)?;
        return Ok(ExitCode::SUCCESS);
    }
    write_status(out, &status)?;
    writeln!(out, "\nnext:")?;
    writeln!(out, "  sidestep run -c {}", config.display())?;
    if let Some(namespace) = status.namespaces.first() {
        writeln!(out, "  ip netns exec {} bash", namespace.name)?;
    }
    writeln!(out, "  sidestep lab down --name {name}")?;
    Ok(ExitCode::SUCCESS)
}

/// An interruption is no mistake to explain: it ends with the code by which shells show it.
fn interrupted_or(error: LabError) -> anyhow::Result<ExitCode> {
    match error.interrupted() {
        Some(interrupted) => {
            // The terminal may be what went away.
            let _ = writeln!(io::stderr(), "{interrupted}; everything that was made is removed");
            Ok(ExitCode::from(interrupted.exit_code()))
        }
        None => Err(error.into()),
    }
}

/// The name of a lab: as given, or that of the document's file without its ending.
fn lab_name(name: Option<&str>, config: Option<&Path>) -> anyhow::Result<Option<String>> {
    if let Some(name) = name {
        return Ok(Some(name.to_owned()));
    }
    let Some(config) = config else { return Ok(None) };
    let stem = config.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.with_context(|| format!("{} has no name to name the lab by: use --name", config.display()))?;
    Ok(Some(stem.to_owned()))
}

fn write_status(out: &mut dyn Write, lab: &Status) -> io::Result<()> {
    writeln!(out, "lab {}: {} ({})", lab.name, lab.state, lab.document.display())?;
    for namespace in &lab.namespaces {
        writeln!(out, "  namespace {}{}", namespace.name, if namespace.present { "" } else { " (gone)" })?;
    }
    for process in &lab.processes {
        let ended = if process.running { "" } else { " (ended)" };
        writeln!(out, "  process {} {}{ended}", process.pid, process.what)?;
    }
    for file in &lab.files {
        writeln!(out, "  file {}", file.display())?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{StatusNamespace, StatusProcess};

    #[test]
    fn a_lab_is_named_after_its_document() {
        let name = |name, config: Option<&str>| lab_name(name, config.map(Path::new)).expect("name");
        assert_eq!(name(None, Some("config/demo.toml")), Some("demo".to_owned()));
        assert_eq!(name(Some("mine"), Some("config/demo.toml")), Some("mine".to_owned()));
        assert_eq!(name(None, None), None);
        assert!(lab_name(None, Some(Path::new(".."))).is_err());
    }

    #[test]
    fn status_says_what_is_gone() {
        let lab = Status {
            name: "demo".to_owned(),
            document: PathBuf::from("/srv/demo.toml"),
            state: "up".to_owned(),
            namespaces: vec![
                StatusNamespace { name: "vm1".to_owned(), present: true },
                StatusNamespace { name: "onprem".to_owned(), present: false },
            ],
            processes: vec![StatusProcess { what: "web server in vm1".to_owned(), pid: 7, running: false }],
            files: vec![PathBuf::from("/run/sidestep/lab/demo.d/authority.pem")],
        };
        let mut text = Vec::new();
        write_status(&mut text, &lab).expect("memory");
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "lab demo: up (/srv/demo.toml)\n  namespace vm1\n  namespace onprem (gone)\n  process 7 web server in vm1 \
             (ended)\n  file /run/sidestep/lab/demo.d/authority.pem\n"
        );
    }
}
