//! Switching an endpoint of a subnet, and asking what that would do.

use super::{Current, Node, Prepared, compile, effect, lock};
use crate::control::answers::{EndpointAnswer, FlowChanges};
use crate::control::refusal::Refusal;
use crate::control::{difference, endpoints, explain};

/// An endpoint that is to be switched.
struct EndpointSwitch {
    /// `network/subnet`, as the document has it.
    subnet: String,
    /// The service, as Azure spells it.
    service: String,
    /// Whether that is a change.
    changed: bool,
    /// What would be in force then.
    next: Option<Box<Prepared>>,
}

impl Node {
    /// What switching a service endpoint would do; nothing is done.
    ///
    /// # Errors
    /// As [`Node::set_endpoint`].
    pub fn try_endpoint(&self, subnet: &str, service: &str, enabled: bool) -> Result<EndpointAnswer, Refusal> {
        let current = self.current();
        let switch = self.prepare_endpoint(&current, subnet, service, enabled)?;
        let (routes, flows) = match switch.next {
            Some(next) => {
                (difference::routes(&current.plan, &next.plan), self.foresee(&current, next.snapshot.clone())?)
            }
            None => (Vec::new(), self.all_kept(&current)?),
        };
        let EndpointSwitch { subnet, service, changed, .. } = switch;
        let generation = current.snapshot.generation;
        Ok(EndpointAnswer { subnet, service, enabled, changed, dry_run: true, generation, routes, flows })
    }

    /// Switches a service endpoint of a subnet on or off.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for a subnet or service that there is not, [`Refusal::Conflict`] where another endpoint
    /// excludes it or the catalogue does not have the service's tag. Nothing has changed then.
    pub fn set_endpoint(
        &self,
        who: &str,
        subnet: &str,
        service: &str,
        enabled: bool,
    ) -> Result<EndpointAnswer, Refusal> {
        self.set_endpoint_in(None, who, subnet, service, enabled)
    }

    /// The same if a generation is in force still: that of the dry run whose answer somebody has seen.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where another one is; else as [`Node::set_endpoint`].
    pub fn set_endpoint_as_tried(
        &self,
        generation: u64,
        who: &str,
        subnet: &str,
        service: &str,
        enabled: bool,
    ) -> Result<EndpointAnswer, Refusal> {
        self.set_endpoint_in(Some(generation), who, subnet, service, enabled)
    }

    fn set_endpoint_in(
        &self,
        generation: Option<u64>,
        who: &str,
        subnet: &str,
        service: &str,
        enabled: bool,
    ) -> Result<EndpointAnswer, Refusal> {
        let _changing = lock(&self.changing);
        let current = self.current();
        let verb = if enabled { "enable" } else { "disable" };
        let result =
            is_in_force(&current, generation).and_then(|()| self.switch_endpoint(&current, subnet, service, enabled));
        if !matches!(&result, Ok(answer) if !answer.changed) {
            let done = result.as_ref().map(|done| Some(effect(&done.routes, &done.flows)));
            self.remember(who, &format!("{verb} {service} on {subnet}"), done);
        }
        result
    }

    fn switch_endpoint(
        &self,
        current: &Current,
        subnet: &str,
        service: &str,
        enabled: bool,
    ) -> Result<EndpointAnswer, Refusal> {
        let EndpointSwitch { subnet, service, changed, next } =
            self.prepare_endpoint(current, subnet, service, enabled)?;
        let (routes, flows) = match next {
            Some(next) => {
                let routes = difference::routes(&current.plan, &next.plan);
                (routes, self.commit(current, *next)?.1)
            }
            None => (Vec::new(), self.all_kept(current)?),
        };
        let generation = self.publisher.generation();
        Ok(EndpointAnswer { subnet, service, enabled, changed, dry_run: false, generation, routes, flows })
    }

    /// Compiles the network with an endpoint switched on or off, if that is a change.
    fn prepare_endpoint(
        &self,
        current: &Current,
        subnet: &str,
        service: &str,
        enabled: bool,
    ) -> Result<EndpointSwitch, Refusal> {
        let subnet = explain::subnet(&current.network, subnet)?;
        let service = endpoints::service(service)?;
        let mut network = (*current.network).clone();
        let name = network.subnet_name(subnet);
        // What was switched off and comes back is as the document has it.
        let returns = enabled && current.switched.contains_key(&(name.clone(), service.name));
        let declared = returns.then(|| current.document.check(&current.catalogue)).transpose()?;
        let changed = endpoints::switch(&mut network, subnet, service, enabled, declared.as_ref())?;
        let next = if changed {
            let mut switched = current.switched.clone();
            // Switched back, the subnet is again as the document has it.
            let key = (name.clone(), service.name);
            if switched.remove(&key).is_none() {
                switched.insert(key, enabled);
            }
            let document = current.document.clone();
            let (generation, previous) = (current.snapshot.generation + 1, Some(&*current.snapshot));
            let next = compile(document, current.catalogue.clone(), network, switched, generation, previous)?;
            Some(Box::new(next))
        } else {
            None
        };
        Ok(EndpointSwitch { subnet: name, service: service.name.to_owned(), changed, next })
    }

    /// What becomes of flows where nothing changes.
    fn all_kept(&self, current: &Current) -> Result<FlowChanges, Refusal> {
        let FlowChanges { complete, kept, .. } = self.foresee(current, current.snapshot.clone())?;
        Ok(FlowChanges { complete, reset: 0, moved: 0, kept, cut: Vec::new() })
    }
}

/// Whether what somebody has seen of the network still holds.
fn is_in_force(current: &Current, generation: Option<u64>) -> Result<(), Refusal> {
    let now = current.snapshot.generation;
    match generation.filter(|seen| *seen != now) {
        None => Ok(()),
        Some(seen) => Err(Refusal::Conflict(format!(
            "the network has changed since the dry run: it was of generation {seen}, and generation {now} is in force; try again"
        ))),
    }
}
