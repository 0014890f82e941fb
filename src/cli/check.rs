//! `sidestep check`: reads a network document, reports every mistake in it, and gives advice on what is none.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{error_text, write_json};
use crate::model::network::Network;
use crate::model::places::Places;
use crate::model::{self, Mistake, Mistakes, TagNames};
use crate::plan::Plan;
use crate::plan::advice::{self, Advice, Kind};
use crate::tags::Catalogue;

/// Check a network document: report every mistake with its place and what to write instead.
///
/// Exits with 0 if the document is good, and with 1 if it has mistakes. Advice changes nothing about that, but with
/// --deny-advice.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The network document.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Catalogue of service tags to use instead of the one that the document names.
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// Give advice on a good document as well: what users of service endpoints trip over, each piece with its name, its
    /// place, the reason and the way out. The exit code is 0 with advice, too.
    #[arg(long)]
    pub advice: bool,

    /// As --advice, but exit with 1 if there is any.
    #[arg(long)]
    pub deny_advice: bool,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// A good document and the catalogue that it names.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The network. Its `tags` is the file of the catalogue, also where that was chosen on the command line.
    pub(crate) network: Network,
    /// The catalogue; none if neither document nor command line names one.
    pub(crate) catalogue: Option<Catalogue>,
    /// The document as it was read.
    pub(crate) text: String,
}

/// What was found in a good document.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    path: &'a Path,
    ok: bool,
    virtual_networks: usize,
    subnets: usize,
    service_endpoints: usize,
    route_tables: usize,
    routes: usize,
    nics: usize,
    services: usize,
    service_tags: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<Vec<Advice>>,
}

/// What was found in a document with mistakes.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    path: &'a Path,
    ok: bool,
    mistakes: &'a [Mistake],
}

/// Checks a document. Mistakes are the answer: as text they go to stderr, as JSON to `out`.
///
/// # Errors
/// The document cannot be read, or the answer cannot be written.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match load(&args.config, args.tags.as_deref())? {
        Ok(loaded) => {
            let mut summary = Summary::of(&args.config, &loaded);
            let stale = advice::stale_rules(&loaded.network);
            if args.advice || args.deny_advice {
                summary.advice = Some(advice_on(loaded)?);
            } else if stale > 0 {
                let number = count(stale, "piece of advice", "pieces of advice");
                eprintln!("{}: {number} on {}: see --advice", args.config.display(), Kind::StaleSubnet.name());
            }
            if args.json {
                write_json(out, &summary)?;
            } else {
                writeln!(out, "{}", summary.text())?;
            }
            let has_advice = summary.advice.is_some_and(|advice| !advice.is_empty());
            Ok(if args.deny_advice && has_advice { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(mistakes) => {
            if args.json {
                let failure = Failure { path: &mistakes.path, ok: false, mistakes: &mistakes.mistakes };
                write_json(out, &failure)?;
            } else {
                let number = count(mistakes.mistakes.len(), "mistake", "mistakes");
                eprintln!("{mistakes}\n{}: {number}", mistakes.path.display());
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The advice on a good document.
///
/// # Errors
/// The catalogue misses a tag that the network needs: then there is no telling what its routes are.
fn advice_on(loaded: Loaded) -> anyhow::Result<Vec<Advice>> {
    let plan = Plan::new(Arc::new(loaded.network), Arc::new(loaded.catalogue.unwrap_or_default()));
    plan.check()?;
    Ok(plan.advice(&Places::new(&loaded.text)))
}

/// Reads a document and the catalogue that it names, or `tags` in its place.
///
/// # Errors
/// The outer error: the document cannot be read. The inner one: its mistakes, one of which may be that the catalogue
/// cannot be used.
pub(crate) fn load(config: &Path, tags: Option<&Path>) -> anyhow::Result<Result<Loaded, Mistakes>> {
    let text = fs::read_to_string(config).with_context(|| format!("{}: cannot be read", config.display()))?;
    let tags = tags.map(Path::to_owned).or_else(|| model::tags_path(&text, config));
    let catalogue = match tags.as_deref().map(Catalogue::load).transpose() {
        Ok(catalogue) => catalogue,
        Err(error) => {
            let message = format!("the catalogue cannot be used: {}", error_text(&error.into()));
            let mistake = model::mistake_at_tags(&text, message, None);
            let mut mistakes = match model::parse(&text, config, Some(&AnyTag)) {
                Ok(_) => Mistakes { path: config.to_owned(), mistakes: Vec::new() },
                Err(mistakes) => mistakes,
            };
            mistakes.add(mistake);
            return Ok(Err(mistakes));
        }
    };
    let names = catalogue.as_ref().map(|catalogue| catalogue as &dyn TagNames);
    Ok(model::parse(&text, config, names).map(|mut network| {
        network.tags = tags;
        Loaded { network, catalogue, text: text.clone() }
    }))
}

/// Stands for a catalogue that cannot be used: no tag is a mistake then.
struct AnyTag;

impl TagNames for AnyTag {
    fn contains(&self, _: &str) -> bool {
        true
    }

    fn nearest(&self, _: &str) -> Option<String> {
        None
    }

    fn usable_in_routes(&self, _: &str) -> bool {
        true
    }
}

impl<'a> Summary<'a> {
    fn of(path: &'a Path, loaded: &Loaded) -> Self {
        let network = &loaded.network;
        let subnets = || network.virtual_networks.iter().flat_map(|network| &network.subnets);
        Self {
            path,
            ok: true,
            virtual_networks: network.virtual_networks.len(),
            subnets: subnets().count(),
            service_endpoints: subnets().map(|subnet| subnet.service_endpoints.len()).sum(),
            route_tables: network.route_tables.len(),
            routes: network.route_tables.iter().map(|table| table.routes.len()).sum(),
            nics: network.nics.len(),
            services: network.services.len(),
            service_tags: loaded.catalogue.as_ref().map(|catalogue| catalogue.tags().len()),
            advice: None,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: ok: ", self.path.display());
        let counts = [
            count(self.virtual_networks, "virtual network", "virtual networks"),
            count(self.subnets, "subnet", "subnets"),
            count(self.service_endpoints, "service endpoint", "service endpoints"),
            count(self.route_tables, "route table", "route tables"),
            count(self.routes, "route", "routes"),
            count(self.nics, "NIC", "NICs"),
            count(self.services, "service", "services"),
        ];
        text.push_str(&counts.join(", "));
        if let Some(tags) = self.service_tags {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {} in the catalogue", count(tags, "service tag", "service tags"));
        }
        let path = self.path.display();
        for Advice { line, column, name, message, reason, way_out } in self.advice.iter().flatten() {
            let _ = write!(
                text,
                "\n{path}:{line}:{column}: advice: [{name}] {message}\n  reason: {reason}\n  way out: {way_out}"
            );
        }
        if let Some(advice) = &self.advice {
            let _ = write!(text, "\n{path}: {}", count(advice.len(), "piece of advice", "pieces of advice"));
        }
        text
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
