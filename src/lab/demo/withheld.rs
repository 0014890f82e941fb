//! Resets that do not arrive. One connection is to behave as if the forwarder had reset nothing, so that the demo can
//! measure what the resets are good for: nftables drops them in the namespaces of both of its ends.

use crate::lab::command::{CommandError, Tool};

/// The table that the rules are in.
const TABLE: &str = "inet withheld_resets";

/// Rules that withhold the resets of one connection until this is dropped.
#[derive(Debug)]
pub(super) struct WithheldResets {
    namespaces: Vec<String>,
}

impl WithheldResets {
    /// Withholds, in these namespaces, every reset from or to the client's port of a connection. The other end sees the
    /// same port: masquerading changes it only where another connection has it already.
    ///
    /// # Errors
    /// `nft` failed.
    pub(super) fn start(namespaces: [&str; 2], port: u16) -> Result<Self, CommandError> {
        let rules = rules(port);
        let mut withheld = Self { namespaces: Vec::new() };
        for netns in namespaces {
            Tool::new("nft").words("-f -").inside(netns).input(&rules).run()?;
            withheld.namespaces.push(netns.to_owned());
        }
        Ok(withheld)
    }
}

impl Drop for WithheldResets {
    fn drop(&mut self) {
        for netns in &self.namespaces {
            // A rule that cannot be removed ends with its namespace.
            let _ = Tool::new("nft").words("delete table").words(TABLE).inside(netns).uninterruptible().run();
        }
    }
}

fn rules(port: u16) -> String {
    format!(
        "table {TABLE} {{\n\tchain input {{\n\t\ttype filter hook input priority filter\n\
         \t\ttcp flags & rst == rst tcp dport {port} drop\n\t\ttcp flags & rst == rst tcp sport {port} drop\n\t}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resets_of_the_one_port_are_dropped() {
        assert_eq!(
            rules(40_000),
            "table inet withheld_resets {\n\tchain input {\n\t\ttype filter hook input priority filter\n\
             \t\ttcp flags & rst == rst tcp dport 40000 drop\n\t\ttcp flags & rst == rst tcp sport 40000 drop\n\t}\n}\n"
        );
    }
}
