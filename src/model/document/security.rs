//! The document as written: security groups, endpoint policies, firewalls of services.

use toml::Spanned;
use toml::de::DeValue;

use super::Text;
use crate::model::mistake::Report;
use crate::model::read::{Fields, List, Read};

/// `[[application_security_group]]`
#[derive(Debug)]
pub(in crate::model) struct ApplicationSecurityGroup {
    pub(in crate::model) name: Option<Text>,
}

read_table!(ApplicationSecurityGroup, "an application security group", |fields| {}
    name: fields.required("name"),
);

/// `[[network_security_group]]`
#[derive(Debug)]
pub(in crate::model) struct NetworkSecurityGroup {
    pub(in crate::model) name: Option<Text>,
    pub(in crate::model) flush_connection: bool,
    pub(in crate::model) security_rules: List<SecurityRule>,
}

read_table!(NetworkSecurityGroup, "a network security group", |fields| {}
    name: fields.required("name"),
    flush_connection: fields.flag("flush_connection"),
    security_rules: fields.list("security_rules"),
);

/// `security_rules = [{ … }]`
#[derive(Debug)]
pub(in crate::model) struct SecurityRule {
    pub(in crate::model) name: Option<Text>,
    pub(in crate::model) description: Option<Text>,
    pub(in crate::model) priority: Option<Spanned<i64>>,
    pub(in crate::model) direction: Option<Text>,
    pub(in crate::model) access: Option<Text>,
    pub(in crate::model) protocol: Option<Text>,
    pub(in crate::model) source: RuleSide,
    pub(in crate::model) destination: RuleSide,
}

read_table!(SecurityRule, "a security rule", |fields| {}
    name: fields.required("name"),
    description: fields.optional("description"),
    priority: fields.required("priority"),
    direction: fields.required("direction"),
    access: fields.required("access"),
    protocol: fields.required("protocol"),
    source: RuleSide::read(&mut fields, &SOURCE),
    destination: RuleSide::read(&mut fields, &DESTINATION),
);

/// One side of a rule. Azure has a key for one value and a key for several.
#[derive(Debug)]
pub(in crate::model) struct RuleSide {
    pub(in crate::model) address_prefix: Option<Text>,
    pub(in crate::model) address_prefixes: Option<Spanned<List<String>>>,
    pub(in crate::model) application_security_groups: Option<Spanned<List<String>>>,
    pub(in crate::model) port_range: Option<Text>,
    pub(in crate::model) port_ranges: Option<Spanned<List<String>>>,
}

impl RuleSide {
    fn read(fields: &mut Fields<'_>, keys: &SideKeys) -> Self {
        Self {
            address_prefix: fields.optional(keys.address_prefix),
            address_prefixes: fields.optional(keys.address_prefixes),
            application_security_groups: fields.optional(keys.application_security_groups),
            port_range: fields.optional(keys.port_range),
            port_ranges: fields.optional(keys.port_ranges),
        }
    }
}

/// The keys of one side.
#[derive(Debug)]
pub(in crate::model) struct SideKeys {
    pub(in crate::model) address_prefix: &'static str,
    pub(in crate::model) address_prefixes: &'static str,
    pub(in crate::model) application_security_groups: &'static str,
    pub(in crate::model) port_range: &'static str,
    pub(in crate::model) port_ranges: &'static str,
}

/// The keys of the source.
pub(in crate::model) const SOURCE: SideKeys = SideKeys {
    address_prefix: "source_address_prefix",
    address_prefixes: "source_address_prefixes",
    application_security_groups: "source_application_security_groups",
    port_range: "source_port_range",
    port_ranges: "source_port_ranges",
};

/// The keys of the destination.
pub(in crate::model) const DESTINATION: SideKeys = SideKeys {
    address_prefix: "destination_address_prefix",
    address_prefixes: "destination_address_prefixes",
    application_security_groups: "destination_application_security_groups",
    port_range: "destination_port_range",
    port_ranges: "destination_port_ranges",
};

/// `[[service_endpoint_policy]]`
#[derive(Debug)]
pub(in crate::model) struct ServiceEndpointPolicy {
    pub(in crate::model) name: Option<Text>,
    pub(in crate::model) location: Option<Text>,
    pub(in crate::model) unidentified: Option<Text>,
    pub(in crate::model) definitions: List<PolicyDefinition>,
}

read_table!(ServiceEndpointPolicy, "a service endpoint policy", |fields| {}
    name: fields.required("name"),
    location: fields.optional("location"),
    unidentified: fields.optional("unidentified"),
    definitions: fields.filled_list("definitions"),
);

/// `definitions = [{ … }]`
#[derive(Debug)]
pub(in crate::model) struct PolicyDefinition {
    pub(in crate::model) name: Option<Text>,
    pub(in crate::model) description: Option<Text>,
    pub(in crate::model) service: Option<Text>,
    pub(in crate::model) service_resources: List<String>,
}

read_table!(PolicyDefinition, "a definition of a service endpoint policy", |fields| {}
    name: fields.required("name"),
    description: fields.optional("description"),
    service: fields.required("service"),
    service_resources: fields.filled_list("service_resources"),
);

/// `firewall = { … }` of a service or of a resource.
#[derive(Debug)]
pub(in crate::model) struct Firewall {
    pub(in crate::model) public_network_access: Option<Text>,
    pub(in crate::model) default_action: Option<Text>,
    pub(in crate::model) virtual_network_rules: List<VirtualNetworkRule>,
    pub(in crate::model) ip_rules: List<String>,
    pub(in crate::model) bypass: List<String>,
    pub(in crate::model) resource_access_rules: List<String>,
    pub(in crate::model) denial: Option<Text>,
    pub(in crate::model) answering_port: Option<Spanned<i64>>,
}

read_table!(Firewall, "a firewall", |fields| {}
    public_network_access: fields.optional("public_network_access"),
    default_action: fields.optional("default_action"),
    virtual_network_rules: fields.list("virtual_network_rules"),
    ip_rules: fields.list("ip_rules"),
    bypass: fields.list("bypass"),
    resource_access_rules: fields.list("resource_access_rules"),
    denial: fields.optional("denial"),
    answering_port: fields.optional("answering_port"),
);

/// `virtual_network_rules = [{ … }]`
#[derive(Debug)]
pub(in crate::model) struct VirtualNetworkRule {
    pub(in crate::model) subnet: Option<Text>,
    pub(in crate::model) ignore_missing_endpoint: bool,
}

read_table!(VirtualNetworkRule, "a virtual network rule", |fields| {}
    subnet: fields.required("subnet"),
    ignore_missing_endpoint: fields.flag("ignore_missing_endpoint"),
);
