//! Checks service endpoint policies and what they list.

use toml::Spanned;

use super::nsg::MAX_DESCRIPTION;
use super::{Context, shown, text};
use crate::model::document;
use crate::model::names::{Unique, check_resource_name, did_you_mean, nearest, region};
use crate::model::network::{Access, PolicyDefinition, PolicyScope, ServiceEndpointPolicy};

/// Policies of one subscription (Azure, "Virtual network service endpoint policies", as the others here).
const MAX_POLICIES: usize = 500;
/// Policies of one subnet.
const MAX_POLICIES_OF_SUBNET: usize = 100;
/// Resources of one definition.
const MAX_RESOURCES: usize = 200;

/// The alias of every managed service.
const EVERY_ALIAS: &str = "/services/Azure";
/// The managed services that have an alias.
pub(super) const ALIASES: [&str; 6] = [
    "/services/Azure/Batch",
    "/services/Azure/Databricks",
    "/services/Azure/DataFactory",
    "/services/Azure/MachineLearning",
    "/services/Azure/ManagedInstance",
    "/services/Azure/WebPI",
];

/// What a definition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyService {
    Storage,
    Global,
}

/// Checks all policies.
pub(super) fn service_endpoint_policies(context: Context<'_>) -> Vec<ServiceEndpointPolicy> {
    let policies = &context.document.service_endpoint_policies;
    context.at_most(MAX_POLICIES, policies, "service endpoint policies");
    let mut names = Unique::new("service endpoint policy");
    let checked = policies.iter().map(Spanned::get_ref).map(|written| {
        if let Some(name) = &written.name {
            check_resource_name(name, context.report);
            names.note_name(name, context.report);
        }
        ServiceEndpointPolicy {
            name: text(&written.name),
            unidentified: context.access(&written.unidentified, "unidentified").unwrap_or(Access::Deny),
            definitions: definitions(context, written),
        }
    });
    checked.collect()
}

fn definitions(context: Context<'_>, policy: &document::ServiceEndpointPolicy) -> Vec<PolicyDefinition> {
    let mut names = Unique::new("definition");
    let checked = policy.definitions.iter().map(Spanned::get_ref).map(|written| {
        if let Some(name) = &written.name {
            check_resource_name(name, context.report);
            names.note_name(name, context.report);
        }
        if let Some(text) = written.description.as_ref().filter(|text| text.get_ref().chars().count() > MAX_DESCRIPTION)
        {
            context.report.mistake(&text.span(), format!("a description has {MAX_DESCRIPTION} characters at most"));
        }
        let words = [("Microsoft.Storage", PolicyService::Storage), ("Global", PolicyService::Global)];
        let service = context.word_of_any_case(&written.service, "service of a policy", &words);
        let what = format!("resources of the definition `{}`", shown(&written.name));
        context.at_most(MAX_RESOURCES, &written.service_resources, &what);
        let mut seen = Unique::new("resource");
        let listed = written.service_resources.iter().filter_map(|resource| {
            seen.note_name(resource, context.report);
            scope(context, service?, resource)
        });
        PolicyDefinition { name: text(&written.name), service_resources: listed.collect() }
    });
    checked.collect()
}

/// Reads one of `service_resources` (Azure, the same page: a subscription, a resource group, a storage account; or an
/// alias, of the service `Global`).
fn scope(context: Context<'_>, service: PolicyService, written: &document::Text) -> Option<PolicyScope> {
    let text = written.get_ref();
    let is_alias = text.get(..EVERY_ALIAS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVERY_ALIAS));
    match (service, is_alias) {
        (PolicyService::Global, true) => {
            if text.eq_ignore_ascii_case(EVERY_ALIAS) {
                return Some(PolicyScope::EveryAlias);
            }
            alias(context, written).map(PolicyScope::Alias)
        }
        (PolicyService::Storage, false) => {
            if !is_scope(text) {
                context.report.mistake_with_help(
                    &written.span(),
                    format!("`{text}` is not a subscription, a resource group or a storage account"),
                    "write \"/subscriptions/ID\", with \"/resourceGroups/NAME\" and with \
                     \"/providers/Microsoft.Storage/storageAccounts/NAME\" behind it for less",
                );
                return None;
            }
            Some(PolicyScope::Id(text.clone()))
        }
        (PolicyService::Storage, true) => {
            let message = format!("`{text}` is an alias, which the service `Microsoft.Storage` does not have");
            context.report.mistake_with_help(
                &written.span(),
                message,
                "write it in a definition of service = \"Global\"",
            );
            None
        }
        (PolicyService::Global, false) => {
            let message = format!("`{text}` is not an alias, and the service `Global` has nothing else");
            context.report.mistake_with_help(
                &written.span(),
                message,
                "write \"/services/Azure\", or a definition of service = \"Microsoft.Storage\"",
            );
            None
        }
    }
}

/// A managed service's alias, as Azure spells it.
pub(super) fn alias(context: Context<'_>, written: &document::Text) -> Option<String> {
    let text = written.get_ref();
    let found = ALIASES.iter().find(|known| known.eq_ignore_ascii_case(text));
    if found.is_none() {
        let help = did_you_mean(nearest(text, ALIASES));
        let help = help.unwrap_or_else(|| format!("aliases are {}", ALIASES.join(", ")));
        context.report.mistake_with_help(&written.span(), format!("unknown alias `{text}`"), help);
    }
    found.map(|known| (*known).to_owned())
}

/// `/subscriptions/{id}`, `…/resourceGroups/{group}`, `…/providers/Microsoft.Storage/storageAccounts/{name}`.
fn is_scope(text: &str) -> bool {
    let mut parts = text.split('/');
    let is = |part: Option<&str>, wanted: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(wanted));
    let named = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
    if parts.next() != Some("") || !is(parts.next(), "subscriptions") || !named(parts.next()) {
        return false;
    }
    let Some(groups) = parts.next() else { return true };
    if !groups.eq_ignore_ascii_case("resourceGroups") || !named(parts.next()) {
        return false;
    }
    let Some(providers) = parts.next() else { return true };
    providers.eq_ignore_ascii_case("providers")
        && is(parts.next(), "Microsoft.Storage")
        && is(parts.next(), "storageAccounts")
        && named(parts.next())
        && parts.next().is_none()
}

/// The policies of a subnet of a virtual network, which are in the network's region.
pub(super) fn of_subnet(context: Context<'_>, subnet: &document::Subnet, location: &str) -> Vec<usize> {
    let written = &subnet.service_endpoint_policies;
    context.at_most(MAX_POLICIES_OF_SUBNET, written, &format!("policies of subnet `{}`", shown(&subnet.name)));
    let mut seen = Unique::new("service endpoint policy");
    let policies = &context.document.service_endpoint_policies;
    let found = written.iter().filter_map(|name| {
        seen.note_name(name, context.report);
        let found = context.find_policy(name.get_ref());
        if found.is_none() && policies.complete {
            context.unknown("service endpoint policy", name, policies.iter().map(|policy| &policy.get_ref().name));
        }
        let place = found.and_then(|found| policies[found].get_ref().location.as_ref());
        if let Some(place) = place.filter(|place| region(place) != location) {
            context.report.mistake_with_help(
                &name.span(),
                format!("the policy `{}` is in `{}`, and the network in `{location}`", name.get_ref(), place.get_ref()),
                "a policy and the networks that use it are in one region",
            );
        }
        found
    });
    found.collect()
}
