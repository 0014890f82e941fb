//! The loop that only reads and writes: what no forwarder between two TUN devices can be faster than.
//!
//! One read and one write for each packet or super-packet, whole with the offload header in front of it; nothing of it is
//! looked at. So what a node is slower than this is what it does with packets.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use ipnet::IpNet;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::interrupt;
use crate::port::Port;
use crate::port::open::{Interface, Io, OpenError, Settings, open};

/// Packets of one device that are passed on before the other one has its turn, as in a worker.
const TURN: usize = 256;

/// The largest super-packet with the header in front of it.
const LONGEST: usize = 65_535 + 12;

/// How long a wait may be before signals are looked at.
const LONGEST_SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One of the two devices: everything that its host sends goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The host's namespace.
    pub netns: String,
    /// The device that is made in it.
    pub device: String,
    /// The host's address.
    pub address: IpNet,
}

/// What the loop has passed on and lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets and super-packets.
    pub packets: u64,
    /// Their bytes, headers in front of them included.
    pub bytes: u64,
    /// Those that the other device did not take.
    pub dropped: u64,
}

/// Why the loop did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NullError {
    /// A device could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refused to wait for packets or to read them.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Passes packets on between two devices until a signal asks to stop. `ready` is called once they are there, with what each
/// was granted.
///
/// # Errors
/// [`NullError`]; the devices are gone then, too.
pub fn run(ends: &[End; 2], io: Io, ready: impl FnOnce([String; 2]) -> io::Result<()>) -> Result<Passed, NullError> {
    let failed = |action| move |source: io::Error| NullError::Io { action, source };
    interrupt::listen().map_err(failed("listen to signals"))?;
    let [left, right] = [device(&ends[0], io)?, device(&ends[1], io)?];
    let descriptor = |port: &'_ dyn Port| port.readable().map(|fd| fd.try_clone_to_owned()).transpose();
    let gone = || io::Error::other("the device has no descriptor");
    let fds = [&left, &right].map(|port| descriptor(&**port).and_then(|fd| fd.ok_or_else(gone)));
    let [left_fd, right_fd] = fds;
    let fds = [left_fd.map_err(failed("use a device"))?, right_fd.map_err(failed("use a device"))?];

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| failed("wait for packets")(error.into()))?;
    for (number, fd) in (0..).zip(&fds) {
        epoll::add(&epoll, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)
            .map_err(|error| failed("wait for packets")(error.into()))?;
    }
    ready([left.describe(), right.describe()]).map_err(failed("tell that it is ready"))?;

    let mut buffer = vec![0; LONGEST];
    let mut passed = Passed::default();
    let mut events = [MaybeUninit::uninit(); 2];
    while interrupt::check().is_ok() {
        let ready = match epoll::wait(&epoll, &mut events, Some(&LONGEST_SLEEP)) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(failed("wait for packets")(error.into())),
        };
        for event in ready {
            let from = usize::from(event.data.u64() == 1);
            let (source, target) = if from == 0 { (&fds[0], &fds[1]) } else { (&fds[1], &fds[0]) };
            pass(source.as_fd(), target.as_fd(), &mut buffer, &mut passed).map_err(failed("read packets"))?;
        }
    }
    Ok(passed)
}

/// Passes on what a device has, up to its turn.
fn pass(source: BorrowedFd<'_>, target: BorrowedFd<'_>, buffer: &mut [u8], passed: &mut Passed) -> io::Result<()> {
    for _ in 0..TURN {
        let length = match rustix::io::read(source, &mut *buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match rustix::io::write(target, buffer.get(..length).unwrap_or_default()) {
            Ok(_) => {
                passed.packets += 1;
                passed.bytes += length as u64;
            }
            Err(_) => passed.dropped += 1,
        }
    }
    Ok(())
}

/// Makes one of the devices.
fn device(end: &End, io: Io) -> Result<Box<dyn Port>, NullError> {
    let everywhere: IpNet = if end.address.addr().is_ipv4() {
        IpNet::V4(ipnet::Ipv4Net::default())
    } else {
        IpNet::V6(ipnet::Ipv6Net::default())
    };
    let settings = Settings {
        name: end.netns.clone(),
        interface: Interface::Tun { name: end.device.clone() },
        netns: Some(end.netns.clone()),
        mtu: 1_500,
        addresses: vec![end.address],
        routes: vec![(everywhere, None)],
        link: None,
        pcap: None::<PathBuf>,
        io,
        queues: 1,
        persistent: false,
    };
    let mut ports = open(&settings)?;
    // There are as many ports as queues.
    Ok(ports.remove(0))
}
