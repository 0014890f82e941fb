//! `sidestep apply`: puts a whole document in force on a running node.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::node::{NodeArgs, refused_document};
use super::{changes, write_json};
use crate::control::answers::DocumentAnswer;
use crate::control::client::target;

/// Put a document in force on a running node, all or nothing.
///
/// Exits with 1 if the document is refused; then nothing has changed, and every mistake is shown.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The network document.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Sends the document.
///
/// # Errors
/// The document cannot be read, no node answers, or it refuses for another reason than the document's mistakes.
pub fn run(args: &ApplyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let shown = args.config.display();
    let text = fs::read_to_string(&args.config).with_context(|| format!("{shown}: cannot be read"))?;
    let path = std::path::absolute(&args.config).with_context(|| format!("{shown}: has no absolute path"))?;
    let path = path.to_str().with_context(|| format!("{shown}: the path is not UTF-8"))?;
    let dry_run = if args.dry_run { "true" } else { "false" };
    let target = target(&["v1", "document"], &[("path", path), ("dry_run", dry_run)]);
    match args.node.client().put::<DocumentAnswer>(&target, text) {
        Ok(answer) if args.json => write_json(out, &answer)?,
        Ok(answer) => out.write_all(describe(&answer).as_bytes())?,
        Err(error) => return refused_document(error, &args.config, args.json, out),
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(answer: &DocumentAnswer) -> String {
    let mut text = changes::routes(&answer.routes);
    for (what, ports) in [
        ("new ports", &answer.ports_added),
        ("ports gone", &answer.ports_removed),
        ("ports changed", &answer.ports_changed),
    ] {
        if !ports.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what}: {}", ports.join(", "));
        }
    }
    let subnets = match answer.routes.len() {
        0 => "no routes change".to_owned(),
        1 => "routes of 1 subnet change".to_owned(),
        count => format!("routes of {count} subnets change"),
    };
    text.push_str(&changes::flows_cut(&answer.flows, answer.dry_run));
    let flows = changes::flows_counted(&answer.flows, answer.dry_run);
    let done = if answer.dry_run { "nothing done, still generation" } else { "generation" };
    let _ = writeln!(text, "{done} {}: {subnets}, {flows}", answer.generation);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flows::tests::flow;
    use crate::control::answers::{FlowChanges, RouteChanges};

    #[test]
    fn changes_are_shown_like_a_difference() {
        let mut answer = DocumentAnswer {
            generation: 4,
            dry_run: true,
            routes: vec![RouteChanges {
                subnet: "spoke/workload".to_owned(),
                added: vec!["Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage".to_owned()],
                removed: vec!["User Active 20.0.0.0/8 Internet direct".to_owned()],
            }],
            ports_added: vec!["vm2".to_owned(), "vm3".to_owned()],
            ports_removed: Vec::new(),
            ports_changed: vec!["internet".to_owned()],
            flows: FlowChanges { reset: 1, moved: 1, kept: 5, cut: vec![flow()] },
        };
        assert_eq!(
            describe(&answer),
            "\
spoke/workload
  - User Active 20.0.0.0/8 Internet direct
  + Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage
new ports: vm2, vm3
ports changed: internet
flows that would be cut:
Protocol  From  Source          To           Destination     Source seen  Destination seen  Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  =            =                 VirtualNetworkServiceEndpoint  established  10/12    1000/90000
and 1 more
nothing done, still generation 4: routes of 1 subnet change, flows that would be reset 1, moved 1, kept 5
"
        );
        answer.dry_run = false;
        let text = describe(&answer);
        assert!(text.contains("\nflows cut:\n"), "{text}");
        assert!(
            text.ends_with("\ngeneration 4: routes of 1 subnet change, flows reset 1, moved 1, kept 5\n"),
            "{text}"
        );
    }
}
