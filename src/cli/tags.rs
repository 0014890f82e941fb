//! `sidestep tags`: questions to the service-tag catalogue, and putting another one in force.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;

use super::node::NodeArgs;
use super::{changes, table, write_json};
use crate::control::answers::DocumentAnswer;
use crate::control::client::target;
use crate::tags::{COMPUTED_TAGS, Catalogue, CatalogueError, Difference, Statistics, Tag, TagChange};

/// Look into the catalogue of service tags, or put another one in force on a running node.
#[derive(Debug, Args)]
pub struct TagsArgs {
    /// The question.
    #[command(subcommand)]
    pub command: TagsCommand,
}

/// The questions.
#[derive(Debug, Subcommand)]
pub enum TagsCommand {
    /// Show which tags contain an address, longest prefix first.
    Lookup {
        /// An IPv4 or IPv6 address.
        address: IpAddr,
        /// The catalogue.
        #[command(flatten)]
        catalogue: CatalogueArgs,
        /// The form of the answer.
        #[command(flatten)]
        form: FormArgs,
    },
    /// Show a tag and its prefixes.
    Show {
        /// The tag's name, such as Storage.WestEurope.
        tag: String,
        /// The catalogue.
        #[command(flatten)]
        catalogue: CatalogueArgs,
        /// The form of the answer.
        #[command(flatten)]
        form: FormArgs,
    },
    /// List the tags.
    List {
        /// The catalogue.
        #[command(flatten)]
        catalogue: CatalogueArgs,
        /// The form of the answer.
        #[command(flatten)]
        form: FormArgs,
    },
    /// Count tags, prefixes and addresses.
    Stats {
        /// The catalogue.
        #[command(flatten)]
        catalogue: CatalogueArgs,
        /// The form of the answer.
        #[command(flatten)]
        form: FormArgs,
    },
    /// Put another catalogue in force on a running node, as if it had been started with `--tags FILE`.
    ///
    /// It then stands in for the one that the document names, and its file is looked at for changes.
    Apply(ApplyArgs),
    /// Compare two catalogues: tags and prefixes that were added, removed or changed.
    Diff {
        /// The older file.
        older: PathBuf,
        /// The newer file.
        newer: PathBuf,
        /// The form of the answer.
        #[command(flatten)]
        form: FormArgs,
    },
}

/// Which catalogue is put in force.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The service tags, in the format of Azure's weekly file.
    pub file: PathBuf,
    /// Show which routes would change and which flows would be cut, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The form of the answer.
    #[command(flatten)]
    pub form: FormArgs,
}

/// Which catalogue is asked.
#[derive(Debug, Args)]
pub struct CatalogueArgs {
    /// The service tags, in the format of Azure's weekly file [default: a small built-in catalogue].
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,
}

impl CatalogueArgs {
    /// Loads the catalogue.
    ///
    /// # Errors
    /// As [`Catalogue::load`].
    pub fn load(&self) -> Result<Catalogue, CatalogueError> {
        match &self.tags {
            Some(path) => Catalogue::load(path),
            None => Catalogue::built_in(),
        }
    }
}

/// How the answer is written.
#[derive(Debug, Args)]
pub struct FormArgs {
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Answers one question, or puts a catalogue in force.
///
/// # Errors
/// A catalogue that cannot be loaded, or a tag that is not in it; no node answers, or it refuses.
pub fn run(args: &TagsArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        TagsCommand::Lookup { address, catalogue, form } => lookup(*address, &catalogue.load()?, form, out)?,
        TagsCommand::Show { tag, catalogue, form } => show(tag, &catalogue.load()?, form, out)?,
        TagsCommand::List { catalogue, form } => list(&catalogue.load()?, form, out)?,
        TagsCommand::Stats { catalogue, form } => stats(&catalogue.load()?.statistics(), form, out)?,
        TagsCommand::Apply(args) => apply(args, out)?,
        TagsCommand::Diff { older, newer, form } => {
            let (older, newer) = (Catalogue::load(older)?, Catalogue::load(newer)?);
            diff(&older.difference(&newer), form, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(args: &ApplyArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let shown = args.file.display();
    let path = std::path::absolute(&args.file).with_context(|| format!("{shown}: has no absolute path"))?;
    let path = path.to_str().with_context(|| format!("{shown}: the path is not UTF-8"))?;
    let dry_run = if args.dry_run { "true" } else { "false" };
    let target = target(&["v1", "catalogue"], &[("path", path), ("dry_run", dry_run)]);
    let answer = args.node.client().put::<DocumentAnswer>(&target, String::new())?;
    if args.form.json {
        return write_json(out, &answer);
    }
    out.write_all(changes::document(&answer).as_bytes())?;
    Ok(())
}

/// An answer of `lookup`.
#[derive(Serialize)]
struct LookupAnswer<'a> {
    address: IpAddr,
    tags: Vec<LookupTag<'a>>,
}

/// A tag that contains the address.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LookupTag<'a> {
    name: &'a str,
    address_prefix: IpNet,
    region: &'a str,
    system_service: &'a str,
    network_features: Option<&'a [String]>,
}

fn lookup(address: IpAddr, catalogue: &Catalogue, form: &FormArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let found = catalogue.lookup(address);
    if form.json {
        let tags = found.iter().map(|(tag, prefix)| LookupTag {
            name: &tag.name,
            address_prefix: *prefix,
            region: &tag.region,
            system_service: &tag.system_service,
            network_features: tag.network_features.as_deref(),
        });
        return write_json(out, &LookupAnswer { address, tags: tags.collect() });
    }
    if found.is_empty() {
        writeln!(out, "{address} is in no service tag")?;
        return Ok(());
    }
    let mut rows = table(["Tag", "Prefix", "Region", "Service", "Features"]);
    for (tag, prefix) in found {
        let prefix = prefix.to_string();
        rows.add_row([&tag.name, &prefix, dash(&tag.region), dash(&tag.system_service), dash(&features(tag))]);
    }
    writeln!(out, "{}", rows.trim_fmt())?;
    Ok(())
}

/// A tag in the form of Azure's document.
#[derive(Serialize)]
struct ShowAnswer<'a> {
    name: &'a str,
    id: &'a str,
    properties: ShowProperties<'a>,
}

/// The properties of a tag in the form of Azure's document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShowProperties<'a> {
    change_number: u64,
    region: &'a str,
    region_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    platform: &'a str,
    system_service: &'a str,
    address_prefixes: Vec<IpNet>,
    network_features: Option<&'a [String]>,
}

fn show(name: &str, catalogue: &Catalogue, form: &FormArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(tag) = catalogue.get(name) else {
        return Err(unknown_tag(name, catalogue));
    };
    if form.json {
        let properties = ShowProperties {
            change_number: tag.change_number,
            region: &tag.region,
            region_id: tag.region_id,
            state: tag.state.as_deref(),
            platform: &tag.platform,
            system_service: &tag.system_service,
            address_prefixes: tag.prefixes().collect(),
            network_features: tag.network_features.as_deref(),
        };
        return write_json(out, &ShowAnswer { name: &tag.name, id: &tag.id, properties });
    }
    let region = match tag.region_id {
        0 => dash(&tag.region).to_owned(),
        id => format!("{} ({id})", tag.region),
    };
    writeln!(out, "{}", tag.name)?;
    writeln!(out, "  service        {}", dash(&tag.system_service))?;
    writeln!(out, "  region         {region}")?;
    writeln!(out, "  features       {}", dash(&features(tag)))?;
    writeln!(out, "  change number  {}", tag.change_number)?;
    writeln!(out, "  prefixes       {} IPv4, {} IPv6", tag.prefixes_v4.len(), tag.prefixes_v6.len())?;
    for prefix in tag.prefixes() {
        writeln!(out, "    {prefix}")?;
    }
    Ok(())
}

fn unknown_tag(name: &str, catalogue: &Catalogue) -> anyhow::Error {
    if let Some(computed) = COMPUTED_TAGS.iter().find(|computed| computed.eq_ignore_ascii_case(name)) {
        return anyhow!("{computed} is computed from the network and has no list of prefixes");
    }
    match catalogue.nearest(name) {
        Some(nearest) => anyhow!("there is no service tag \"{name}\"; did you mean \"{nearest}\"?"),
        None => anyhow!("there is no service tag \"{name}\""),
    }
}

/// A tag in `list`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListTag<'a> {
    name: &'a str,
    region: &'a str,
    region_id: u32,
    system_service: &'a str,
    change_number: u64,
    network_features: Option<&'a [String]>,
    prefixes_v4: usize,
    prefixes_v6: usize,
}

fn list(catalogue: &Catalogue, form: &FormArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if form.json {
        let tags = catalogue.tags().map(|tag| ListTag {
            name: &tag.name,
            region: &tag.region,
            region_id: tag.region_id,
            system_service: &tag.system_service,
            change_number: tag.change_number,
            network_features: tag.network_features.as_deref(),
            prefixes_v4: tag.prefixes_v4.len(),
            prefixes_v6: tag.prefixes_v6.len(),
        });
        return write_json(out, &tags.collect::<Vec<_>>());
    }
    let mut rows = table(["Tag", "Region", "Service", "IPv4", "IPv6", "Features"]);
    for tag in catalogue.tags() {
        let (v4, v6) = (tag.prefixes_v4.len().to_string(), tag.prefixes_v6.len().to_string());
        rows.add_row([&tag.name, dash(&tag.region), dash(&tag.system_service), &v4, &v6, dash(&features(tag))]);
    }
    writeln!(out, "{}", rows.trim_fmt())?;
    Ok(())
}

fn stats(statistics: &Statistics, form: &FormArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if form.json {
        return write_json(out, statistics);
    }
    let Statistics { prefixes_v4, prefixes_v6, distinct_v4, distinct_v6, .. } = statistics;
    let used: Vec<_> = statistics.network_features.iter().map(|(name, count)| format!("{name} {count}")).collect();
    writeln!(out, "cloud          {}", dash(&statistics.cloud))?;
    writeln!(out, "change number  {}", statistics.change_number)?;
    writeln!(
        out,
        "tags           {} ({} global, {} regional in {} regions)",
        statistics.tags, statistics.global_tags, statistics.regional_tags, statistics.regions
    )?;
    writeln!(out, "prefixes       {} ({prefixes_v4} IPv4, {prefixes_v6} IPv6)", statistics.prefixes)?;
    writeln!(out, "distinct       {} ({distinct_v4} IPv4, {distinct_v6} IPv6)", distinct_v4 + distinct_v6)?;
    writeln!(out, "addresses      {} IPv4", statistics.addresses_v4)?;
    writeln!(out, "features       {}", dash(&used.join(", ")))?;
    writeln!(out, "endpoint tags  {}", dash(&statistics.endpoint_tags.join(", ")))?;
    Ok(())
}

fn diff(difference: &Difference<'_>, form: &FormArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if form.json {
        return write_json(out, difference);
    }
    let Difference { from, to, added, removed, changed } = difference;
    writeln!(out, "change number {from} -> {to}")?;
    if difference.is_empty() {
        writeln!(out, "no tag differs")?;
        return Ok(());
    }
    writeln!(out, "tags: {} added, {} removed, {} changed", added.len(), removed.len(), changed.len())?;
    writeln!(out, "prefixes: {} added, {} removed", difference.added_prefixes(), difference.removed_prefixes())?;
    for (sign, changes) in [('+', added), ('-', removed), ('~', changed)] {
        for change in changes {
            write_change(sign, change, out)?;
        }
    }
    Ok(())
}

fn write_change(sign: char, change: &TagChange<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{sign} {}", change.name)?;
    for field in &change.fields {
        writeln!(out, "    {}: {} -> {}", field.field, dash(&field.from), dash(&field.to))?;
    }
    for prefix in &change.added_prefixes {
        writeln!(out, "    + {prefix}")?;
    }
    for prefix in &change.removed_prefixes {
        writeln!(out, "    - {prefix}")?;
    }
    Ok(())
}

fn features(tag: &Tag) -> String {
    tag.network_features.as_deref().unwrap_or_default().join(", ")
}

/// A table cell is never empty.
fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
