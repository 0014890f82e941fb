//! The switch: the endpoint is enabled while applications talk through the forced tunnel, and what they notice of it is
//! measured. One of them is kept from hearing its reset, which is what every one of them would go through without resets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::connection::{Client, TIMEOUT};
use super::document::Subject;
use super::outcome::{Datagrams, Reconnection, Switch, Unreset};
use super::probe::median;
use super::record::Moment;
use super::report::rounded;
use super::stream::{RATE, Stream};
use super::withheld::WithheldResets;
use super::{CONNECTION, DemoError, Progress, Stage};

/// Connections to the service that hear their resets.
const CONNECTIONS: usize = 8;

/// How many datagrams of each stream have to come back before the switch, and how many in all.
const DATAGRAMS_BEFORE: u64 = RATE as u64 / 4;
const DATAGRAMS: u64 = DATAGRAMS_BEFORE + RATE as u64;

/// Enables the endpoint under traffic and measures what becomes of that.
pub(super) fn measure(
    stage: &Stage,
    subject: &Subject,
    progress: &mut Progress<'_>,
) -> Result<(Switch, Moment), DemoError> {
    let (vm, service, web) = (subject.vm_netns.as_str(), subject.service_address, subject.web_address);
    progress.say(&format!("opening {} connections and two streams of datagrams", CONNECTIONS + 2));
    let mut connected = (0..CONNECTIONS).map(|_| start(vm, service)).collect::<Result<Vec<_>, _>>()?;
    let (mut unreset, mut to_web) = (start(vm, service)?, start(vm, web)?);
    for client in connected.iter_mut().chain([&mut to_web]) {
        client.wait_for(subject.public_address, CONNECTION)?;
    }
    let port = unreset.wait_for(subject.public_address, CONNECTION)?.port;
    let withheld = WithheldResets::start([vm, &subject.service_netns], port)?;
    let service_stream = Stream::start(vm, &subject.service_netns, service)?;
    let web_stream = Stream::start(vm, &subject.web_netns, web)?;
    for stream in [&service_stream, &web_stream] {
        stream.wait_for(DATAGRAMS_BEFORE, CONNECTION)?;
    }

    progress.say(&format!("under this traffic, enabling the endpoint of {} on {}", subject.service, subject.subnet));
    let switched = Instant::now();
    let answer = stage.enable_endpoint(subject)?;
    let mut back = |client: &mut Client| -> Result<f64, DemoError> {
        let first = client.wait_for(subject.private_address, CONNECTION)?;
        Ok(first.at.saturating_duration_since(switched).as_secs_f64() * 1e3)
    };
    let times = connected.iter_mut().map(&mut back).collect::<Result<Vec<_>, _>>()?;
    for stream in [&service_stream, &web_stream] {
        stream.wait_for(DATAGRAMS, CONNECTION)?;
    }
    let stream_begin = service_stream.begin();
    let ((web_datagrams, _), (service_datagrams, echoes)) = (web_stream.finish(), service_stream.finish());
    progress.say(&format!("waiting for the application that heard no reset: its timeout is {} s", TIMEOUT.as_secs()));
    let unreset_after = back(&mut unreset)?;
    drop(withheld);

    for client in connected.iter_mut().chain([&mut unreset, &mut to_web]) {
        client.stop();
    }
    for client in connected.iter().chain([&to_web]) {
        client.refuse_breaks()?;
    }
    let moment = Moment { at: switched, stream_begin, echoes, back_after_ms: times.clone() };
    let switch = Switch {
        flows_reset: answer.flows.reset,
        connections: Reconnection {
            open: connected.len(),
            reset: connected.iter().map(|client| client.resets).sum(),
            back_after_median_ms: rounded(median(times.clone()).unwrap_or_default(), 1),
            back_after_worst_ms: rounded(times.into_iter().fold(0.0, f64::max), 1),
        },
        without_reset: Unreset {
            timeout_ms: milliseconds(TIMEOUT),
            reset: unreset.resets,
            timeouts: unreset.timeouts,
            back_after_ms: rounded(unreset_after, 1),
        },
        web_connections_reset: to_web.resets,
        service_datagrams: Datagrams::of(service_datagrams),
        web_datagrams: Datagrams::of(web_datagrams),
    };
    Ok((switch, moment))
}

fn start(netns: &str, address: IpAddr) -> Result<Client, DemoError> {
    Client::start(netns, address)
        .map_err(|source| DemoError::Probe { what: format!("a connection to {address}"), said: source.to_string() })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
