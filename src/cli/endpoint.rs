//! `sidestep endpoint`: switches a service endpoint of a subnet on a running node.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::node::NodeArgs;
use super::write_json;
use crate::control::answers::EndpointAnswer;
use crate::control::client::target;

/// Enable or disable a service endpoint on a subnet of a running node.
///
/// TCP connections that the switch moves to another path are closed, so that applications connect again.
#[derive(Debug, Args)]
pub struct EndpointArgs {
    /// Which way.
    #[command(subcommand)]
    pub command: EndpointCommand,
}

/// Which way.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Enable an endpoint.
    Enable(SwitchArgs),
    /// Disable an endpoint.
    Disable(SwitchArgs),
}

/// Which endpoint.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The subnet: NETWORK/SUBNET.
    #[arg(value_name = "SUBNET")]
    pub subnet: String,

    /// The service: Microsoft.Storage, Microsoft.Sql, …
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the node.
///
/// # Errors
/// No node answers, or it refuses.
pub fn run(args: &EndpointArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (args, enable) = match &args.command {
        EndpointCommand::Enable(args) => (args, true),
        EndpointCommand::Disable(args) => (args, false),
    };
    let (network, subnet) =
        args.subnet.split_once('/').with_context(|| format!("`{}` is no subnet: write NETWORK/SUBNET", args.subnet))?;
    let target = target(&["v1", "subnets", network, subnet, "endpoints", &args.service], &[]);
    let client = args.node.client();
    let answer: EndpointAnswer = if enable { client.post(&target) } else { client.delete(&target) }?;
    if args.json {
        write_json(out, &answer)?;
    } else {
        writeln!(out, "{}", text(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &EndpointAnswer) -> String {
    let EndpointAnswer { subnet, service, generation, flows_reset, flows_moved, flows_kept, .. } = answer;
    let state = if answer.enabled { "enabled" } else { "disabled" };
    if answer.changed {
        format!(
            "{service} {state} on {subnet}: generation {generation}, flows reset {flows_reset}, moved {flows_moved}, kept {flows_kept}"
        )
    } else {
        format!("{service} was {state} on {subnet} already: generation {generation}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_one_line() {
        let mut answer = EndpointAnswer {
            subnet: "spoke/workload".to_owned(),
            service: "Microsoft.Storage".to_owned(),
            enabled: true,
            changed: true,
            generation: 2,
            flows_reset: 1,
            flows_moved: 2,
            flows_kept: 4,
        };
        assert_eq!(
            text(&answer),
            "Microsoft.Storage enabled on spoke/workload: generation 2, flows reset 1, moved 2, kept 4"
        );
        answer = EndpointAnswer { enabled: false, changed: false, ..answer };
        assert_eq!(text(&answer), "Microsoft.Storage was disabled on spoke/workload already: generation 2");
    }
}
