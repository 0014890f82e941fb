//! `sidestep identity`: what an `identity6` address says.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ipnet::Ipv6Net;
use serde::Serialize;

use super::{check, write_json};
use crate::plan::Plan;
use crate::plan::identity::IdentityAddress;
use crate::tags::Catalogue;

/// Read the addresses that endpoints with `source = "identity6"` present.
#[derive(Debug, Args)]
pub struct IdentityArgs {
    /// Which question.
    #[command(subcommand)]
    pub command: IdentityCommand,
}

/// Which question.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Take an address apart: region, tags of virtual network and subnet, private address.
    ///
    /// With a document, its virtual network and subnet are named, by the tags that a node has right after it started
    /// with the document: a node that took up other subnets since may have given theirs to none.
    Decode(DecodeArgs),
}

/// Which address.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// The address, as a service's log shows it.
    #[arg(value_name = "ADDRESS")]
    pub address: Ipv6Addr,

    /// The network document whose virtual networks and subnets it may be of.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Catalogue of service tags that names the region [default: the one that the document names].
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// What an address says.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    address: Ipv6Addr,
    prefix: Ipv6Net,
    region_id: u16,
    /// None where no catalogue tells.
    region: Option<String>,
    network_tag: u32,
    subnet_tag: u16,
    private_address: Ipv4Addr,
    /// Only with a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

/// Whose an address is in a document.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    document: PathBuf,
    /// The prefix that the document gives to such addresses; nobody there has one with another.
    identity_prefix: Ipv6Net,
    virtual_network: Option<String>,
    subnet: Option<String>,
}

/// Takes an address apart.
///
/// # Errors
/// The document or catalogue cannot be used; the answer cannot be written.
pub fn run(args: &IdentityArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let IdentityCommand::Decode(args) = &args.command;
    let parts = IdentityAddress::from(args.address);
    let (catalogue, owner) = match &args.config {
        Some(config) => {
            let (catalogue, owner) = owner(parts, config, args.tags.as_deref())?;
            (catalogue, Some(owner))
        }
        None => (Arc::new(args.tags.as_deref().map(Catalogue::load).transpose()?.unwrap_or_default()), None),
    };
    let answer = Answer {
        address: args.address,
        prefix: prefix(args.address),
        region_id: parts.region,
        region: catalogue.region_of_id(parts.region),
        network_tag: parts.network_tag,
        subnet_tag: parts.subnet_tag,
        private_address: parts.private,
        owner,
    };
    if args.json {
        write_json(out, &answer)?;
    } else {
        write!(out, "{}", text(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The upper 32 bits of an address.
fn prefix(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, 32).trunc()
}

/// Whose an address is in a document, and the document's catalogue.
fn owner(parts: IdentityAddress, config: &Path, tags: Option<&Path>) -> anyhow::Result<(Arc<Catalogue>, Owner)> {
    let loaded = check::load(config, tags)?.map_err(|mistakes| anyhow!("the document has mistakes\n{mistakes}"))?;
    let (network, catalogue) = (Arc::new(loaded.network), Arc::new(loaded.catalogue.unwrap_or_default()));
    let snapshot = Plan::new(network.clone(), catalogue.clone()).compile(1, None)?;
    let region = catalogue.region_id(&network.location).unwrap_or(0);
    let identity_prefix = prefix(network.identity.prefix);
    let same_prefix = prefix(Ipv6Addr::from(parts)) == identity_prefix && parts.region == region;
    let of_network = || {
        let tagged = snapshot.identities.iter().filter(|known| known.network_tag == parts.network_tag);
        tagged.filter(|_| same_prefix)
    };
    let owner = Owner {
        document: config.to_owned(),
        identity_prefix,
        virtual_network: of_network().next().map(|known| known.network.clone()),
        subnet: of_network().find(|known| known.subnet_tag == parts.subnet_tag).map(|known| known.subnet.clone()),
    };
    Ok((catalogue, owner))
}

fn text(answer: &Answer) -> String {
    let region = answer.region.as_deref().unwrap_or("unknown");
    let mut text = format!(
        "{}\n  prefix       {}\n  region       {} ({region})\n  network tag  {:#010x}\n  subnet tag   {}\n  address      {}\n",
        answer.address, answer.prefix, answer.region_id, answer.network_tag, answer.subnet_tag, answer.private_address,
    );
    if let Some(owner) = &answer.owner {
        let document = owner.document.display();
        let whose = match (&owner.virtual_network, &owner.subnet) {
            (Some(network), Some(subnet)) => format!("{network}/{subnet}"),
            (Some(network), None) => format!("none of virtual network {network} in {document}"),
            _ if owner.identity_prefix != answer.prefix => {
                format!("none of {document}, whose prefix is {}", owner.identity_prefix)
            }
            _ => format!("none of {document}"),
        };
        text.push_str(&format!("  subnet       {whose}\n"));
    }
    text
}
