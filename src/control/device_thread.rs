//! The one thread of a node that may open devices. Everybody else on the control side asks it, and has no capability.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded, unbounded};

use super::dataplane::{Devices, Queues};
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::privileges::{self, CapabilitySet, Restricted, filter::Filter};

/// Something that the thread does.
type Job = Box<dyn FnOnce() + Send>;

/// Devices that a thread with the privileges for it opens and changes.
#[derive(Clone)]
pub(super) struct DeviceThread<D> {
    devices: D,
    /// None once it has ended.
    thread: Arc<Mutex<Option<Running>>>,
}

struct Running {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl<D: Devices + Clone + 'static> DeviceThread<D> {
    /// Starts the thread, which keeps some of the caller's capabilities and no others.
    ///
    /// # Errors
    /// When there is no thread to be had, or the kernel does not take privileges back.
    pub(super) fn start(devices: D, keep: CapabilitySet) -> io::Result<(Self, Restricted)> {
        let (jobs, asked) = unbounded::<Job>();
        let (told, restricted) = bounded(1);
        let thread = std::thread::Builder::new().name("devices".to_owned()).spawn(move || {
            let result = privileges::restrict(keep, Filter::Devices);
            let failed = result.is_err();
            let _ = told.send(result);
            if !failed {
                asked.into_iter().for_each(|job| job());
            }
        })?;
        let restricted = restricted.recv().map_err(io::Error::other)??;
        Ok((Self { devices, thread: Arc::new(Mutex::new(Some(Running { jobs, thread }))) }, restricted))
    }

    /// Ends the thread, and with it the privileges: from now on no device is opened or changed.
    pub(super) fn end(&self) {
        let running = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { jobs, thread }) = running {
            drop(jobs);
            // A panic has told of itself, and to whoever asked.
            let _ = thread.join();
        }
    }

    /// Has the thread do something for a port.
    fn ask<T: Send + 'static>(
        &self,
        port: &str,
        work: impl FnOnce(&D) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let jobs = match &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(running) => running.jobs.clone(),
            None => {
                return Err(Refusal::Conflict(format!(
                    "port `{port}`: the node has dropped all privileges (--drop-all-privileges), and opens and changes \
                     no device any more: restart it for that"
                )));
            }
        };
        let (reply, answer) = bounded(1);
        let devices = self.devices.clone();
        let job = Box::new(move || {
            let _ = reply.send(work(&devices));
        });
        let answer = jobs.send(job).ok().and_then(|()| answer.recv().ok());
        answer.unwrap_or_else(|| {
            Err(Refusal::Failed(format!("port `{port}`: the thread that opens devices has failed: restart the node")))
        })
    }
}

impl<D: Devices + Clone + 'static> Devices for DeviceThread<D> {
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal> {
        let wanted = attachment.clone();
        self.ask(&attachment.name, move |devices| devices.open(&wanted))
    }

    fn keep(&self, queues: &mut Queues) -> io::Result<()> {
        // A descriptor is enough for that.
        self.devices.keep(queues)
    }

    fn adjust(&self, before: &Attachment, after: &Attachment) -> Result<(), Refusal> {
        let (from, to) = (before.clone(), after.clone());
        self.ask(&after.name, move |devices| devices.adjust(&from, &to))
    }
}
