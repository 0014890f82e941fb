//! `sidestep bench`: what a node is measured against.

use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::run::Io;
use crate::lab::null::{self, End, Passed};
use crate::port::open;

/// What a node is measured against; `scripts/bench` measures.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to run.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What there is to be measured against.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Pass packets on between two hosts and look at none of them, until SIGTERM or Ctrl-C: no forwarder between two TUN
    /// devices can be faster. Needs root.
    Null(NullArgs),
}

/// Arguments of the loop that only reads and writes.
#[derive(Debug, Args)]
pub struct NullArgs {
    /// One host: its namespace, the TUN device that it gets, and the address of that.
    #[arg(value_name = "NETNS/DEVICE=ADDRESS/LENGTH")]
    pub left: End,
    /// The other host.
    #[arg(value_name = "NETNS/DEVICE=ADDRESS/LENGTH")]
    pub right: End,
    /// How TUN devices are opened.
    #[arg(long, value_name = "MODE", default_value = "offload")]
    pub io: Io,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || format!("`{text}` is not of the form NETNS/DEVICE=ADDRESS/LENGTH, such as left/eth0=10.0.0.1/24");
        let (place, address) = text.split_once('=').ok_or_else(wanted)?;
        let (netns, device) = place.split_once('/').ok_or_else(wanted)?;
        let address = address.parse().map_err(|_| wanted())?;
        if netns.is_empty() || device.is_empty() || device.contains('/') {
            return Err(wanted());
        }
        Ok(Self { netns: netns.to_owned(), device: device.to_owned(), address })
    }
}

/// Runs what is asked for.
///
/// # Errors
/// When its devices cannot be made, or fail.
pub fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let BenchCommand::Null(NullArgs { left, right, io }) = &args.command;
    let ends = [left.clone(), right.clone()];
    let io = match io {
        Io::Offload => open::Io::Offload,
        Io::Plain => open::Io::Plain,
    };
    let Passed { packets, bytes, dropped } = null::run(&ends, io, |granted| {
        for (end, granted) in ends.iter().zip(granted) {
            writeln!(out, "{} at {}: {granted}", end.netns, end.address)?;
        }
        writeln!(out, "ready")?;
        out.flush()
    })?;
    eprintln!("passed on {packets} packets of {bytes} bytes, dropped {dropped}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_and_what_is_none_is_told() {
        let end: End = "left/eth0=10.0.0.1/24".parse().unwrap();
        assert_eq!((end.netns.as_str(), end.device.as_str()), ("left", "eth0"));
        assert_eq!(end.address, "10.0.0.1/24".parse().unwrap());
        let v6: End = "right/eth0=fd00::1/64".parse().unwrap();
        assert_eq!(v6.address, "fd00::1/64".parse().unwrap());
        for bad in
            ["", "left", "left/eth0", "left/eth0=10.0.0.1", "left/eth0=x/24", "/eth0=10.0.0.1/24", "left/=10.0.0.1/24"]
        {
            let error = bad.parse::<End>().unwrap_err();
            assert!(error.contains(bad) && error.contains("NETNS/DEVICE=ADDRESS/LENGTH"), "{error}");
        }
    }
}
