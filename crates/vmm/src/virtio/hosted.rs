//! The in-VMM host of device code: one thread a device.
//!
//! The thread sleeps on the queues' kick descriptors and on the device's event source, and calls
//! the device under a lock. vCPU threads take the same lock for resets and the configuration
//! space: so once a reset has returned, nothing of the old driver's is touched any more, and no
//! message has to be waited for. Handlers never block, which bounds the wait.

mod core;
mod kicks;
mod queues;

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use microvm_virtio::{Device, DeviceError, Dispatcher, Event, QueueSet};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::core::{Active, Core};
use self::kicks::Kicks;
use self::queues::HostedQueues;
use super::error::VirtioError;
use super::plug::{DeviceEvent, DeviceEventKind};
use super::state::RingPosition;
use super::transport::{Activation, DeviceHost, HostContext};

const STOP: u64 = 0;
const SOURCE: u64 = 1;
/// Queue `i` has the token `FIRST_KICK + i`.
const FIRST_KICK: u64 = 2;

/// How many events one look at the descriptors takes.
const EVENTS: usize = 16;

/// A device with its thread.
pub(super) struct HostedDevice {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    core: Mutex<Core>,
    /// Paused no more, or stopped.
    wake: Condvar,
    epoll: Epoll,
    stop: EventFd,
    context: HostContext,
    device_type: u32,
    features: u64,
    queue_sizes: Vec<u16>,
}

impl HostedDevice {
    /// Takes a device and starts its thread, which sleeps until the driver is ready.
    pub(super) fn new(
        device: Box<dyn Device<GuestMemoryMmap>>,
        context: HostContext,
    ) -> Result<Self, VirtioError> {
        let descriptor = |what| move |source| VirtioError::Descriptor { what, source };
        let device_type = device.device_type();
        let features = device.features();
        let queue_sizes = device.queue_sizes().to_vec();
        let stop =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(descriptor("the stop descriptor"))?;
        let epoll = Epoll::new().map_err(descriptor("the epoll descriptor"))?;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                device: Some(device),
                active: None,
                kicks: Kicks::new(Arc::clone(&context.kicks), Arc::clone(&context.meter)),
                paused: false,
                stopped: false,
            }),
            wake: Condvar::new(),
            epoll,
            stop,
            context,
            device_type,
            features,
            queue_sizes,
        });
        shared
            .watch(&shared.stop, STOP)
            .map_err(descriptor("the stop descriptor's watch"))?;
        // For the device's life: what an old driver left may still be on its way to the host.
        shared
            .watch_source(&shared.core())
            .map_err(descriptor("the watch of a device's event source"))?;
        let name = format!("virtio-{device_type}");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let _counted = shared.context.meter.thread().count();
                    shared.run();
                }
            })
            .map_err(|source| VirtioError::Thread { name, source })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl DeviceHost for HostedDevice {
    fn device_type(&self) -> u32 {
        self.shared.device_type
    }

    fn features(&self) -> u64 {
        self.shared.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.shared.queue_sizes.clone()
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        // What a device that panics or is stopped would leave.
        data.fill(0);
        let mut core = self.shared.core();
        let read = core.call(|device| device.read_config(offset, data));
        self.shared.check(&mut core, read);
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let mut core = self.shared.core();
        let written = core.call(|device| device.write_config(offset, data));
        self.shared.check(&mut core, written);
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<(), VirtioError> {
        let mut core = self.shared.core();
        let event_idx = activation.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let HostContext {
            interrupt, meter, ..
        } = self.shared.context.clone();
        let queues = HostedQueues::new(activation.queues, event_idx, interrupt, meter)?;
        core.call(|device| device.set_acked_features(activation.features))
            .inspect_err(|_| self.shared.discard(&mut core))?;
        core.active = Some(Active {
            dispatcher: Dispatcher::new(queues.count()),
            queues,
        });
        self.shared.watch_all().inspect_err(|_| {
            self.shared.deactivate(&mut core);
        })?;
        // Drivers may have filled a queue before they were ready to kick.
        kick_all(&mut core);
        Ok(())
    }

    fn reset(&mut self) {
        let mut core = self.shared.core();
        let finished = self.shared.finish(&mut core);
        self.shared.check(&mut core, finished);
        self.shared.deactivate(&mut core);
        let reset = core
            .call(|device| device.reset())
            // It may have been taken off the watch by a failure.
            .and_then(|()| self.shared.watch_again(&core));
        self.shared.check(&mut core, reset);
    }

    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError> {
        // No handler runs while this has the lock, and none starts after.
        let mut core = self.shared.core();
        core.paused = true;
        Ok(match &core.active {
            Some(active) => active.queues.positions(),
            None => Vec::new(),
        })
    }

    fn resume(&mut self) -> Result<(), VirtioError> {
        self.shared.core().paused = false;
        self.shared.wake.notify_all();
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.core().stopped = true;
        self.shared.wake.notify_all();
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // Device code cannot panic through: it is called under `catch_unwind`.
            let _ = thread.join();
        }
        let mut core = self.shared.core();
        // It ends either way, and whoever stops it does not listen for its failures any more.
        let _ = self.shared.finish(&mut core);
        self.shared.deactivate(&mut core);
        self.shared.discard(&mut core);
    }

    fn canceller(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        None
    }
}

impl Drop for HostedDevice {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's thread.
    fn run(&self) {
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => NonZeroUsize::new(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
                Err(source) => {
                    let what = "an epoll wait";
                    return self.fail(&mut self.core(), VirtioError::Descriptor { what, source });
                }
            };
            let Some(count) = count else { continue };
            for event in events.iter().take(count.get()) {
                if !self.serve(event.data()) {
                    return;
                }
            }
        }
    }

    /// Handles one readable descriptor; false ends the thread.
    fn serve(&self, token: u64) -> bool {
        let mut core = self.core();
        // Descriptors stay readable meanwhile: the driver's kicks wait for the end of the pause.
        while core.paused && !core.stopped {
            core = self.wake.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        if core.stopped {
            return false;
        }
        let event = match token {
            STOP => return true,
            SOURCE => Event::Host,
            kick => {
                let Some(index) = kick
                    .checked_sub(FIRST_KICK)
                    .and_then(|index| usize::try_from(index).ok())
                else {
                    return true;
                };
                core.kicks.take(index);
                Event::Kick(index)
            }
        };
        let served = core.dispatch(event, &self.context.memory);
        self.check(&mut core, served);
        true
    }

    /// Has the device work on what was kicked for and its thread had no time for yet: a driver that
    /// goes, or a machine that ends, has sent that before. Bounded, as nothing is done twice.
    fn finish(&self, core: &mut Core) -> Result<(), VirtioError> {
        // A paused device works on nothing.
        if core.paused || core.active.is_none() {
            return Ok(());
        }
        for index in 0..self.queue_sizes.len() {
            if core.kicks.take(index) {
                core.dispatch(Event::Kick(index), &self.context.memory)?;
            }
        }
        Ok(())
    }

    /// Stops the device for an error of its code.
    fn check(&self, core: &mut Core, result: Result<(), VirtioError>) {
        match result {
            Ok(()) | Err(VirtioError::Stopped) => {}
            Err(error) => self.fail(core, error),
        }
    }

    fn fail(&self, core: &mut Core, error: VirtioError) {
        self.deactivate(core);
        if matches!(error, VirtioError::Device(DeviceError::Host { .. })) {
            // It would be readable without end. A driver's reset tries again.
            self.unwatch_source(core);
        }
        // What a device is like after a panic, nobody knows; after an epoll error it has no thread.
        // Otherwise it stays for the next driver. In both cases it lets go of its connections now:
        // whoever is at their other ends would wait for a driver that may never come.
        let for_good =
            !matches!(error, VirtioError::Device(_)) || core.call(|device| device.reset()).is_err();
        if for_good {
            self.discard(core);
        }
        self.context.interrupt.fail(for_good);
        (self.context.events)(DeviceEvent {
            device_type: self.device_type,
            kind: DeviceEventKind::Failed(error),
        });
    }

    /// Takes the queues from the device. Idempotent.
    fn deactivate(&self, core: &mut Core) {
        if core.active.take().is_none() {
            return;
        }
        for kick in self.context.kicks.iter() {
            self.unwatch(kick);
        }
    }

    /// Drops the device, and what it holds on the host with it.
    fn discard(&self, core: &mut Core) {
        self.unwatch_source(core);
        let device = core.device.take();
        // As any of its code, its end may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(device)));
    }

    fn watch_all(&self) -> Result<(), VirtioError> {
        for (index, kick) in (0_u64..).zip(self.context.kicks.iter()) {
            self.watch(kick, FIRST_KICK + index).map_err(not_watched)?;
        }
        Ok(())
    }

    fn watch_source(&self, core: &Core) -> std::io::Result<()> {
        match core.source() {
            Some(source) => self.watch(&source, SOURCE),
            None => Ok(()),
        }
    }

    /// As [`Self::watch_source`], where it may be watched already.
    fn watch_again(&self, core: &Core) -> Result<(), VirtioError> {
        match self.watch_source(core) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(not_watched(error))
            }
            _ => Ok(()),
        }
    }

    fn unwatch_source(&self, core: &Core) {
        if let Some(source) = core.source() {
            self.unwatch(&source);
        }
    }

    fn watch(&self, descriptor: &impl std::os::fd::AsRawFd, token: u64) -> std::io::Result<()> {
        self.epoll.ctl(
            ControlOperation::Add,
            descriptor.as_raw_fd(),
            EpollEvent::new(EventSet::IN, token),
        )
    }

    fn unwatch(&self, descriptor: &impl std::os::fd::AsRawFd) {
        // It fails only where the descriptor was not watched, which is what is wanted.
        let _ = self.epoll.ctl(
            ControlOperation::Delete,
            descriptor.as_raw_fd(),
            EpollEvent::default(),
        );
    }
}

fn kick_all(core: &mut Core) {
    let Core { active, kicks, .. } = core;
    let Some(active) = active else { return };
    for (index, ready) in active.queues.ready().enumerate() {
        if ready {
            kicks.again(index);
        }
    }
}

fn not_watched(source: std::io::Error) -> VirtioError {
    VirtioError::Descriptor {
        what: "a watch of a descriptor",
        source,
    }
}
