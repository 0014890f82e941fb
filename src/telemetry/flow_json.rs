//! A record of a flow log as JSON, as `serde_json` writes it: for who follows, who is told of every flow. What takes time there
//! is to look at every byte of every name of a field; here they are copied.

use super::decimal::{push_address, push_number};
use super::flow_record::{FlowRecord, RuleSeen, Socket, SubnetSeen};

/// Appends a record.
pub(crate) fn push_record(text: &mut Vec<u8>, record: &FlowRecord) {
    // All of them, so that none that is added is forgotten.
    let FlowRecord {
        time,
        event,
        reason,
        protocol,
        protocol_name,
        ingress,
        ingress_port,
        source,
        destination,
        egress,
        egress_port,
        presented,
        reached,
        path,
        next_hop_type,
        endpoint,
        packets,
        bytes,
        began,
        round_trip_us,
        phase,
        outbound,
        inbound,
        from_subnet,
        to_subnet,
        resource,
        service,
        identity,
        admission,
        admitted,
        server_name,
        generation,
        worker,
    } = record;
    let mut object = Object { text };
    object.number("{\"time\":", *time);
    object.text(",\"event\":", Some(event.name()));
    object.text(",\"reason\":", reason.as_deref());
    object.some(",\"protocol\":", *protocol);
    object.text(",\"protocol_name\":", protocol_name.as_deref());
    object.text(",\"ingress\":", ingress.as_deref());
    object.some(",\"ingress_port\":", *ingress_port);
    object.socket(",\"source\":", *source);
    object.socket(",\"destination\":", *destination);
    object.text(",\"egress\":", egress.as_deref());
    object.some(",\"egress_port\":", *egress_port);
    object.socket(",\"presented\":", *presented);
    object.socket(",\"reached\":", *reached);
    object.text(",\"path\":", path.map(|path| path.name()));
    object.text(",\"next_hop_type\":", next_hop_type.as_deref());
    object.text(",\"endpoint\":", endpoint.as_deref());
    object.both(",\"packets\":", *packets);
    object.both(",\"bytes\":", *bytes);
    object.number(",\"began\":", *began);
    object.some(",\"round_trip_us\":", *round_trip_us);
    object.text(",\"phase\":", phase.as_deref());
    object.rule(",\"outbound\":", outbound.as_ref());
    object.rule(",\"inbound\":", inbound.as_ref());
    object.subnet(",\"from_subnet\":", from_subnet.as_ref());
    object.subnet(",\"to_subnet\":", to_subnet.as_ref());
    object.text(",\"resource\":", resource.as_deref());
    object.text(",\"service\":", service.as_deref());
    object.text(",\"identity\":", identity.as_deref());
    object.text(",\"admission\":", admission.as_deref());
    object.flag(",\"admitted\":", *admitted);
    object.text(",\"server_name\":", server_name.as_deref());
    object.number(",\"generation\":", *generation);
    object.number(",\"worker\":", u64::from(*worker));
    object.name("}");
}

/// An object that is being written. Names of fields come with what stands before them.
struct Object<'t> {
    text: &'t mut Vec<u8>,
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        self.text.extend_from_slice(name.as_bytes());
    }

    fn null(&mut self) {
        self.name("null");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        push_number(self.text, number);
    }

    fn some(&mut self, name: &str, number: Option<impl Into<u64>>) {
        self.name(name);
        match number {
            Some(number) => push_number(self.text, number.into()),
            None => self.null(),
        }
    }

    fn both(&mut self, name: &str, [there, back]: [u64; 2]) {
        self.name(name);
        self.number("[", there);
        self.number(",", back);
        self.name("]");
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        self.name(name);
        self.name(match flag {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        });
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        self.name(name);
        let Some(text) = text else { return self.null() };
        if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            // Memory never fails to be written to.
            let _ = serde_json::to_writer(&mut *self.text, text);
            return;
        }
        self.text.push(b'"');
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(b'"');
    }

    fn socket(&mut self, name: &str, socket: Option<Socket>) {
        self.name(name);
        let Some(Socket { address, port }) = socket else { return self.null() };
        self.name("{\"address\":\"");
        push_address(self.text, address);
        self.number("\",\"port\":", port.into());
        self.name("}");
    }

    fn rule(&mut self, name: &str, rule: Option<&RuleSeen>) {
        self.name(name);
        let Some(RuleSeen { group, rule, allowed }) = rule else { return self.null() };
        self.text("{\"group\":", Some(group));
        self.text(",\"rule\":", rule.as_deref());
        self.flag(",\"allowed\":", Some(*allowed));
        self.name("}");
    }

    fn subnet(&mut self, name: &str, subnet: Option<&SubnetSeen>) {
        self.name(name);
        let Some(SubnetSeen { network, subnet }) = subnet else { return self.null() };
        self.text("{\"network\":", Some(network));
        self.text(",\"subnet\":", Some(subnet));
        self.name("}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::kind::PathKind;
    use crate::telemetry::flow_record::FlowEvent;

    #[test]
    fn it_is_what_serde_writes() {
        let mut records = Vec::new();
        let events = [
            FlowEvent::Begin,
            FlowEvent::Reply,
            FlowEvent::Continue,
            FlowEvent::End,
            FlowEvent::Denied,
            FlowEvent::Related,
            FlowEvent::Unsent,
        ];
        for event in events {
            let json = serde_json::json!({
                "time": 5, "event": event, "packets": [0, 1], "bytes": [u64::MAX, 7], "began": 3, "generation": 2, "worker": 1,
            });
            records.push(serde_json::from_value::<FlowRecord>(json).unwrap());
        }
        let text = |text: &str| Some(text.to_owned());
        let socket = |address: &str, port| Some(Socket { address: address.parse().unwrap(), port });
        let rule = |rule, allowed| Some(RuleSeen { group: "a\"b".to_owned(), rule, allowed });
        let subnet = |network: &str| Some(SubnetSeen { network: network.to_owned(), subnet: "w\\x\n".to_owned() });
        for path in [PathKind::Endpoint, PathKind::Tunnel, PathKind::Internet, PathKind::Inside] {
            records.push(FlowRecord {
                reason: text("expired"),
                protocol: Some(6),
                protocol_name: text("tcp"),
                ingress: text("größe\u{7f}\u{0}"),
                ingress_port: Some(0),
                source: socket("10.1.1.4", 40_000),
                destination: socket("2001:db8::1", 0),
                egress: text(""),
                egress_port: Some(65_535),
                presented: socket("::ffff:10.1.1.4", 1),
                reached: socket("255.255.255.255", 65_535),
                path: Some(path),
                next_hop_type: text("Internet"),
                endpoint: text("Microsoft.Storage"),
                round_trip_us: Some(12),
                phase: text("open"),
                outbound: rule(None, true),
                inbound: rule(text("securityRules/x"), false),
                from_subnet: subnet("spoke"),
                to_subnet: subnet(""),
                resource: text("data"),
                service: text("s"),
                identity: text("spoke/workload"),
                admission: text("a rule (\u{1F600})"),
                admitted: Some(path == PathKind::Tunnel),
                server_name: text("www.example.com"),
                ..records[0].clone()
            });
        }
        for record in records {
            let mut text = Vec::new();
            push_record(&mut text, &record);
            assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&record).unwrap());
        }
    }
}
