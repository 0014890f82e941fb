//! `sidestep support-bundle`: what a maintainer asks for first, in one file.
//!
//! It is one JSON file, not an archive: its user can read what is given away before it is attached to a report, in any
//! editor, and a maintainer reads it in the browser or asks it with `jq`. Texts of many lines are lists of lines.

mod mask;

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::mask::Mask;
use super::node::NodeArgs;
use super::{error_text, write_json};
use crate::control::answers::{Counters, Status};
use crate::control::client::{Client, ClientError};
use crate::control::support::{QueueAnswer, SupportAnswer};
use crate::telemetry::recent::Line;

/// Where the bundle is written if the command line does not say where.
const DEFAULT_FILE: &str = "sidestep-support.json";

/// Write what a report of a problem should have into one JSON file: versions, devices and their offloads, counters, metrics,
/// hashes of what is in force, status, the last changes, the newest warnings.
///
/// Every address in it is replaced by a placeholder, the same one for the same address, and so are host names, names of
/// users and folders outside the system's; names of ports, subnets, tags and namespaces stay. Where no node answers, the
/// bundle says so, and has what can be told without one.
#[derive(Debug, Args)]
pub struct SupportBundleArgs {
    /// The file; `-` for stdout.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub output: PathBuf,

    /// Leave addresses and names as they are.
    #[arg(long)]
    pub addresses: bool,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// The bundle.
#[derive(Debug, Serialize)]
struct Bundle {
    /// Of this form; grows when a field changes its meaning.
    format: u32,
    /// When it was made, in seconds since 1970 UTC.
    made_at: u64,
    /// Whether addresses and names are as they were.
    addresses: bool,
    /// Version of the program that made it.
    version: String,
    system: System,
    /// Why no node answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Told>,
}

/// What the machine is, as far as a forwarder cares.
#[derive(Debug, Serialize)]
struct System {
    /// Release of the kernel.
    kernel: Option<String>,
    /// Name of the distribution.
    distribution: Option<String>,
    architecture: &'static str,
    processors: Option<usize>,
    /// Whether there is the driver of TUN devices.
    tun_driver: bool,
}

/// What the node tells.
#[derive(Debug, Serialize)]
struct Told {
    generation: u64,
    document_sha256: String,
    catalogue_sha256: Option<String>,
    snapshot_sha256: String,
    poll: String,
    queues: Vec<QueueAnswer>,
    status: Status,
    counters: Counters,
    log: Vec<Line>,
    log_lost: u64,
    metrics: Vec<String>,
}

/// Writes the bundle.
///
/// # Errors
/// The file cannot be written, or the node is there and cannot be asked. That there is no node is none.
pub fn run(args: &SupportBundleArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (no_node, told) = match ask(&args.node.client()) {
        Ok(told) => (None, Some(told)),
        Err(error @ ClientError::NoNode(_)) => (Some(error_text(&error.into())), None),
        Err(error) => return Err(error.into()),
    };
    let (node, host_names) = told.unzip();
    let silent = no_node.clone();
    let bundle = Bundle {
        format: 1,
        made_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        addresses: args.addresses,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: System::here(),
        no_node,
        node,
    };
    let mut value = serde_json::to_value(&bundle)?;
    if !args.addresses {
        mask_all(&mut value, &mut Mask::new(host_names.unwrap_or_default(), mask::users_here()));
    }
    if args.output == Path::new("-") {
        write_json(out, &value)?;
    } else {
        // Only for who makes it, until they give it away.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&args.output);
        let cannot_write = || format!("cannot write {}", args.output.display());
        let mut file = file.with_context(cannot_write)?;
        // A file that was there keeps its mode, and a device has its own.
        if file.metadata().with_context(cannot_write)?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600)).with_context(cannot_write)?;
        }
        write_json(&mut file, &value).with_context(|| format!("cannot write {}", args.output.display()))?;
    }
    // Not to stdout, which may be the bundle.
    if let Some(reason) = silent {
        eprintln!("{reason}\nthe bundle has what can be told without a node");
    }
    if args.output != Path::new("-") {
        let hidden =
            if args.addresses { "with addresses and names as they are" } else { "without addresses and names" };
        eprintln!("{}: {hidden}; look at it before you attach it to a report", args.output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the node for all that it tells, and for host names that may occur in it.
fn ask(client: &Client) -> Result<(Told, Vec<String>), ClientError> {
    let support: SupportAnswer = client.get("/v1/support")?;
    let told = Told {
        generation: support.generation,
        document_sha256: support.document_sha256,
        catalogue_sha256: support.catalogue_sha256,
        snapshot_sha256: support.snapshot_sha256,
        poll: support.poll,
        queues: support.queues,
        status: client.get("/v1/status")?,
        counters: client.get("/v1/counters")?,
        log: support.log,
        log_lost: support.log_lost,
        metrics: support.metrics.lines().map(str::to_owned).collect(),
    };
    Ok((told, support.host_names))
}

impl System {
    fn here() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok();
        let distribution = line("/etc/os-release").and_then(|text| {
            let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(name.trim_matches('"').to_owned())
        });
        Self {
            // The name of the machine is not asked for.
            kernel: line("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            distribution,
            architecture: std::env::consts::ARCH,
            processors: std::thread::available_parallelism().ok().map(usize::from),
            tun_driver: Path::new("/dev/net/tun").exists(),
        }
    }
}

/// Hides what is to be hidden in every text of a value, names of fields included.
fn mask_all(value: &mut Value, mask: &mut Mask) {
    match value {
        Value::String(text) => *text = mask.text(text),
        Value::Array(values) => values.iter_mut().for_each(|value| mask_all(value, mask)),
        Value::Object(fields) => {
            for (name, mut value) in std::mem::take(fields) {
                mask_all(&mut value, mask);
                fields.insert(mask.text(&name), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
