//! `sidestep routes`: the effective routes of a subnet, each row with why it lost.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;

use super::node::NodeArgs;
use super::{check, table, write_json};
use crate::control::client::{Client, target};
use crate::control::explain;
use crate::plan::Plan;
use crate::plan::explain::{AzureRoute, RouteRow, RoutesAnswer};

/// Show the effective routes of a subnet, each with why it lost.
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// The subnet (`spoke/workload`), or a NIC in it (`vm1`).
    #[arg(value_name = "SUBNET|NIC")]
    pub subject: String,

    /// The network and its catalogue.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Answer in JSON, in the shape of `az network nic show-effective-route-table`.
    #[arg(long)]
    pub json: bool,
}

/// Which network is asked about: that of a document, or that of the running node.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Ask this network document instead of the running node.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Catalogue of service tags to use instead of the one that the document names.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub tags: Option<PathBuf>,

    /// The running node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Who answers.
#[derive(Debug)]
pub(crate) enum Source {
    /// A document that nobody runs.
    Document(Box<Plan>),
    /// The running node.
    Node(Client),
}

impl SourceArgs {
    /// Reads the document and its catalogue and plans the network, if there is one.
    ///
    /// # Errors
    /// As [`plan`].
    pub(crate) fn open(&self) -> anyhow::Result<Source> {
        Ok(match &self.config {
            Some(config) => Source::Document(Box::new(plan(config, self.tags.as_deref())?)),
            None => Source::Node(self.node.client()),
        })
    }
}

/// Plans the network of a document under the catalogue that it names, or `tags` in its place.
///
/// # Errors
/// The document cannot be read or has mistakes, or the catalogue misses a tag that it needs.
pub(crate) fn plan(config: &Path, tags: Option<&Path>) -> anyhow::Result<Plan> {
    let loaded = check::load(config, tags)?.map_err(|mistakes| anyhow!("the document has mistakes\n{mistakes}"))?;
    let plan = Plan::new(Arc::new(loaded.network), Arc::new(loaded.catalogue.unwrap_or_default()));
    plan.check()?;
    Ok(plan)
}

/// Answers from a document or the running node.
///
/// # Errors
/// The document or its catalogue cannot be used; no node answers; there is no such subnet or NIC; the answer cannot be
/// written.
pub fn run(args: &RoutesArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer = match args.source.open()? {
        Source::Document(plan) => explain::routes(&plan, &args.subject)?,
        Source::Node(client) => client.get(&target(&["v1", "routes"], &[("of", &args.subject)]))?,
    };
    show(&answer, args.json, out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes an answer, wherever it comes from.
///
/// # Errors
/// It cannot be written.
pub(crate) fn show(answer: &RoutesAnswer, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return write_json(out, &answer.azure());
    }
    let mut rows = table(["Source", "State", "Address Prefix", "Next Hop Type", "Next Hop IP", "Name", "Why"]);
    for row in &answer.routes {
        let route = &row.route;
        rows.add_row([
            route.source.as_str(),
            &route.state,
            &prefixes(route),
            &route.next_hop_type,
            route.next_hop_ip_address.first().map_or("-", String::as_str),
            &name(row),
            &row.why.join("; "),
        ]);
    }
    writeln!(out, "{}", rows.trim_fmt())?;
    Ok(())
}

/// The name of a user route, the service of an endpoint, with its source where that is not the default.
fn name(row: &RouteRow) -> String {
    let name = row.route.name.as_deref().or(row.service.as_deref()).unwrap_or("-");
    match row.route.endpoint_source.as_deref() {
        None | Some("private") => name.to_owned(),
        Some(source) => format!("{name} ({source})"),
    }
}

/// The prefixes of a route in one cell: the tag or the first prefix, and how many more there are.
fn prefixes(route: &AzureRoute) -> String {
    let number = route.address_prefix.len();
    match (route.destination_service_tags.first(), route.address_prefix.first()) {
        (Some(tag), _) => format!("{tag} ({number})"),
        (None, Some(first)) if number > 1 => format!("{first} (+{})", number - 1),
        (None, Some(first)) => first.clone(),
        (None, None) => "-".to_owned(),
    }
}
