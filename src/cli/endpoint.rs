//! `sidestep endpoint`: switches a service endpoint of a subnet on a running node.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::node::NodeArgs;
use super::{changes, write_json};
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

    /// Show which routes would change and which flows would be cut, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

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
    let dry_run = if args.dry_run { "true" } else { "false" };
    let query = [("dry_run", dry_run)];
    let target = target(&["v1", "subnets", network, subnet, "endpoints", &args.service], &query);
    let client = args.node.client();
    let answer: EndpointAnswer = if enable { client.post(&target) } else { client.delete(&target) }?;
    if args.json {
        write_json(out, &answer)?;
    } else {
        out.write_all(text(&answer).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &EndpointAnswer) -> String {
    let EndpointAnswer { subnet, service, generation, dry_run, .. } = answer;
    let state = if answer.enabled { "enabled" } else { "disabled" };
    if !answer.changed {
        return format!("{service} was {state} on {subnet} already: generation {generation}\n");
    }
    let mut text = changes::routes(&answer.routes);
    text.push_str(&changes::flows_cut(&answer.flows, *dry_run));
    let flows = changes::flows_counted(&answer.flows, *dry_run);
    // Writing to a String cannot fail.
    let _ = if *dry_run {
        writeln!(text, "nothing done, still generation {generation}: {service} {state} on {subnet}, {flows}")
    } else {
        writeln!(text, "{service} {state} on {subnet}: generation {generation}, {flows}")
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flows::tests::flow;
    use crate::control::answers::{FlowChanges, RouteChanges};

    #[test]
    fn what_changes_comes_before_the_last_line() {
        let mut answer = EndpointAnswer {
            subnet: "spoke/workload".to_owned(),
            service: "Microsoft.Storage".to_owned(),
            enabled: true,
            changed: true,
            dry_run: true,
            generation: 2,
            routes: vec![RouteChanges {
                subnet: "spoke/workload".to_owned(),
                added: vec!["Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage".to_owned()],
                removed: Vec::new(),
            }],
            flows: FlowChanges { complete: true, reset: 1, moved: 2, kept: 4, cut: vec![flow()] },
        };
        assert_eq!(
            text(&answer),
            "\
spoke/workload
  + Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage
flows that would be cut:
Protocol  From  Source          To           Destination     Source seen  Destination seen  Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  =            =                 VirtualNetworkServiceEndpoint  established  10/12    1000/90000
and 2 more
nothing done, still generation 2: Microsoft.Storage enabled on spoke/workload, flows that would be reset 1, moved 2, kept 4
"
        );
        answer = EndpointAnswer { dry_run: false, ..answer };
        assert!(
            text(&answer).ends_with(
                "\nand 2 more\nMicrosoft.Storage enabled on spoke/workload: generation 2, flows reset 1, moved 2, kept 4\n"
            ),
            "{}",
            text(&answer)
        );
        answer = EndpointAnswer { enabled: false, changed: false, ..answer };
        assert_eq!(text(&answer), "Microsoft.Storage was disabled on spoke/workload already: generation 2\n");
    }
}
