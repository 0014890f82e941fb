//! What keeps a network from being compiled, or a question about it from being answered.

use std::fmt;

use crate::tags::Catalogue;

/// A network cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Routes, endpoints or security rules refer to tags that the catalogue does not have; a line for each.
    #[error("{}", lines(.0))]
    MissingTags(Vec<MissingTag>),
    /// A node has at most 65,536 ports.
    #[error("the network has more than 65536 NICs, services and edges")]
    TooManyPorts,
    /// A snapshot has at most 65,536 route tables, one for each subnet and one for the gateway.
    #[error("the network has more than 65535 subnets")]
    TooManyTables,
    /// A snapshot has at most 65,536 network security groups, one in different networks or beside different route tables
    /// counted for each.
    #[error("the network uses more than 65536 network security groups")]
    TooManySecurityGroups,
    /// Subnets of one network never get a tag twice while the node runs.
    #[error("the virtual network `{0}` has had 65535 subnets: give the new ones a traffic_tag, or start the node anew")]
    TooManySubnetTags(String),
}

/// A service tag that is referred to and not in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTag {
    /// Who refers to it.
    pub user: TagUser,
    /// The tag as written, or as it follows from service and location.
    pub tag: String,
    /// The known tag with the nearest name.
    pub nearest: Option<String>,
    catalogue_is_empty: bool,
}

/// Who refers to a service tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagUser {
    /// A user route.
    Route {
        /// Name of its route table.
        table: String,
        /// Its name.
        route: String,
    },
    /// A service endpoint.
    Endpoint {
        /// Name of its subnet.
        subnet: String,
        /// Its service.
        service: String,
    },
    /// A security rule.
    Rule {
        /// Name of its network security group.
        group: String,
        /// Its name.
        rule: String,
    },
}

impl MissingTag {
    pub(crate) fn new(user: TagUser, tag: String, catalogue: &Catalogue) -> Self {
        let nearest = catalogue.nearest(&tag).map(str::to_owned);
        Self { user, tag, nearest, catalogue_is_empty: catalogue.tags().len() == 0 }
    }
}

impl fmt::Display for MissingTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            TagUser::Route { table, route } => write!(f, "route table `{table}`, route `{route}`: ")?,
            TagUser::Endpoint { subnet, service } => write!(f, "subnet `{subnet}`, endpoint `{service}`: ")?,
            TagUser::Rule { group, rule } => write!(f, "network security group `{group}`, rule `{rule}`: ")?,
        }
        if self.catalogue_is_empty {
            return write!(f, "it needs the service tag `{}`, and there is no service-tag catalogue", self.tag);
        }
        write!(f, "the catalogue has no service tag `{}`", self.tag)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

fn lines(missing: &[MissingTag]) -> String {
    missing.iter().map(MissingTag::to_string).collect::<Vec<_>>().join("\n")
}

/// A name that is none of the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// What was looked for: `subnet or NIC`.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
    /// The known name that is nearest to it.
    pub nearest: Option<String>,
}

impl UnknownName {
    pub(crate) fn new<'n>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        Self { what, name: name.to_owned(), nearest: nearest(name, known).map(str::to_owned) }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} `{}`", self.what, self.name)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownName {}

/// The known name that differs least, in a third of its letters at most.
fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let wanted = name.to_ascii_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
