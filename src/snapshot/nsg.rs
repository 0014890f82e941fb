//! Network security groups, compiled.

use crate::table::classifier::Classifier;

/// A network security group in the context of a subnet: which addresses `VirtualNetwork` and application security groups
/// stand for depends on that. Index into [`super::Snapshot::nsgs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NsgId(pub u16);

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// The packet passes this group.
    Allow,
    /// The packet is dropped.
    Deny,
}

/// A rule, for deciding and explaining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// `securityRules/allow-web` or `defaultSecurityRules/AllowVnetInBound`, as Azure's IP flow verify spells it.
    pub name: String,
    /// Its priority: 100 to 4,096, default rules from 65,000.
    pub priority: u16,
    /// What it says.
    pub access: Access,
}

/// The rules of one direction in the order of their priority.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which rule matches first; its sets are those of [`super::Snapshot::address_sets`].
    pub classifier: Classifier,
    /// The rules.
    pub rules: Vec<RuleInfo>,
}

/// A network security group in a context.
#[derive(Debug, Clone)]
pub struct Nsg {
    /// Its name in the document.
    pub name: String,
    /// `flush_connection`: a rule that changes ends flows that it denies now. Otherwise they live on (Azure, "Network
    /// security groups").
    pub flush: bool,
    /// What comes to the NIC.
    pub inbound: Rules,
    /// What the NIC sends.
    pub outbound: Rules,
    /// What the NIC sends to addresses of the platform: the outbound rules whose destination is the tag of such an address
    /// (`AzurePlatformDNS`, `AzurePlatformIMDS`). Where none of them matches, the packet passes (Azure, "Network security
    /// groups", platform considerations).
    pub platform: Rules,
}

/// The groups of a NIC; where there is none, everything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NicNsgs {
    /// That of its subnet.
    pub subnet: Option<NsgId>,
    /// Its own.
    pub nic: Option<NsgId>,
}
