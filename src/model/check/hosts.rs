//! Checks the hosts of the lab.

use toml::Spanned;

use super::Context;
use super::devices::one_of_each_family;
use super::ports::public_address;
use super::ranges::no_host;
use super::translation::presented;
use crate::model::document;
use crate::model::names::{Unique, check_host_name, check_netns_name, did_you_mean, nearest};
use crate::model::network::{Lab, LabHost};

/// Checks `[lab]`.
pub(super) fn lab(context: Context<'_>) -> Option<Lab> {
    let lab = context.document.lab.as_ref()?.get_ref();
    let mut hosts = Unique::new("lab host");
    let mut addresses = Unique::new("address");
    let mut names = Unique::new("host name");
    for service in context.document.services.iter().map(Spanned::get_ref) {
        for address in service.addresses.iter() {
            addresses.reserve(*address.get_ref(), address.span());
        }
        for name in service.all_host_names() {
            names.reserve(name.get_ref().to_ascii_lowercase(), name.span());
        }
    }
    if let Some(internet) = &context.document.internet {
        for address in internet.get_ref().public_addresses.iter() {
            addresses.reserve(*address.get_ref(), address.span());
        }
    }
    for address in presented(context.document) {
        addresses.reserve(*address.get_ref(), address.span());
    }
    for host in lab.hosts.iter().map(Spanned::get_ref) {
        if let Some(netns) = &host.netns {
            check_netns_name(netns, context.report);
            hosts.note(netns.get_ref().clone(), netns.get_ref(), netns.span(), context.report);
        }
        for address in masquerade(host).chain(host.web.iter()) {
            addresses.note(*address.get_ref(), &address.get_ref().to_string(), address.span(), context.report);
        }
        check_masquerade(context, lab, host);
        check_web(context, host);
        for name in host.web_names.iter() {
            names.note_name(name, context.report);
        }
        check_connect(context, lab, host);
    }
    Some(Lab { hosts: lab.hosts.iter().map(|host| checked(host.get_ref())).collect() })
}

fn checked(host: &document::LabHost) -> LabHost {
    LabHost {
        netns: super::text(&host.netns),
        masquerade: masquerade(host).map(|address| *address.get_ref()).collect(),
        connect: connect_to(host).map(|to| to.get_ref().clone()),
        web: host.web.iter().map(|address| *address.get_ref()).collect(),
        web_names: host.web_names.iter().map(|name| name.get_ref().clone()).collect(),
    }
}

fn masquerade(host: &document::LabHost) -> impl Iterator<Item = &Spanned<std::net::IpAddr>> {
    host.masquerade.iter().flat_map(|written| written.get_ref().0.iter())
}

fn connect_to(host: &document::LabHost) -> Option<&document::Text> {
    host.connect.as_ref()?.get_ref().to.as_ref()
}

fn check_masquerade(context: Context<'_>, lab: &document::Lab, host: &document::LabHost) {
    let Some(written) = &host.masquerade else { return };
    for address in masquerade(host) {
        public_address(context, address, "what a host masquerades as");
    }
    one_of_each_family(context, &written.get_ref().0, "masquerade address");
    let is_connected = host.connect.is_some()
        || lab.hosts.iter().any(|other| {
            let to = connect_to(other.get_ref()).map(Spanned::get_ref);
            to.is_some() && to == host.netns.as_ref().map(Spanned::get_ref)
        });
    if !is_connected {
        context.report.mistake_with_help(
            &written.span(),
            "this host masquerades, but is connected to no other",
            "add connect = { to = \"HOST\" }",
        );
    }
}

fn check_web(context: Context<'_>, host: &document::LabHost) {
    for address in host.web.iter() {
        if let Some(range) = no_host(*address.get_ref()) {
            let message = format!("`{}` cannot be a web site's address: it is {range}", address.get_ref());
            context.report.mistake(&address.span(), message);
        }
    }
    for name in host.web_names.iter() {
        check_host_name(name, context.report);
    }
    if let (Some(name), true) = (host.web_names.first(), host.web.is_empty() && host.web.complete) {
        context.report.mistake_with_help(
            &name.span(),
            "web_names without `web` lead nowhere",
            "add the web site's addresses: web = [\"198.51.100.80\"]",
        );
    }
}

fn check_connect(context: Context<'_>, lab: &document::Lab, host: &document::LabHost) {
    let Some(to) = connect_to(host) else { return };
    let known = || lab.hosts.iter().filter_map(|host| Some(host.get_ref().netns.as_ref()?.get_ref().as_str()));
    if host.netns.as_ref().is_some_and(|netns| netns.get_ref() == to.get_ref()) {
        context.report.mistake(&to.span(), format!("the lab host `{}` is connected to itself", to.get_ref()));
    } else if !known().any(|netns| netns == to.get_ref()) {
        let help = did_you_mean(nearest(to.get_ref(), known()));
        context.report.add(&to.span(), format!("unknown lab host `{}`", to.get_ref()), help);
    }
}
