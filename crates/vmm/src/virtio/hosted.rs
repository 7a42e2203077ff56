//! The in-VMM host of device code: one thread a device.
//!
//! The thread sleeps on the queues' kick descriptors and on the device's event source, and calls
//! the device under a lock. vCPU threads take the same lock for resets and the configuration
//! space: so once a reset has returned, nothing of the old driver's is touched any more, and no
//! message has to be waited for. Handlers never block, which bounds the wait.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::VirtioError;
use super::plug::{DeviceEvent, DeviceEventKind};
use super::state::{QueueState, RingPosition};
use super::transport::{Activation, DeviceHost, HostContext, Interrupt};

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
}

struct Core {
    device: Box<dyn Device<GuestMemoryMmap>>,
    active: Option<Active>,
    paused: bool,
    stopped: bool,
}

struct Active {
    queues: HostedQueues,
    dispatcher: Dispatcher,
}

/// The queues that the driver set up, as the device works on them.
struct HostedQueues {
    queues: Vec<Option<Queue>>,
    interrupt: Arc<dyn Interrupt>,
}

impl QueueSet for HostedQueues {
    fn count(&self) -> usize {
        self.queues.len()
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)?.as_mut()
    }

    fn signal(&self, index: usize) {
        self.interrupt.signal_queue(index);
    }

    fn signal_config(&self) {
        self.interrupt.signal_config();
    }
}

impl HostedDevice {
    /// Takes a device and starts its thread, which sleeps until the driver is ready.
    pub(super) fn new(
        device: Box<dyn Device<GuestMemoryMmap>>,
        context: HostContext,
    ) -> Result<Self, VirtioError> {
        let descriptor = |what| move |source| VirtioError::Descriptor { what, source };
        let device_type = device.device_type();
        let stop =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(descriptor("the stop descriptor"))?;
        let epoll = Epoll::new().map_err(descriptor("the epoll descriptor"))?;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                device,
                active: None,
                paused: false,
                stopped: false,
            }),
            wake: Condvar::new(),
            epoll,
            stop,
            context,
            device_type,
        });
        shared
            .watch(&shared.stop, STOP)
            .map_err(descriptor("the stop descriptor's watch"))?;
        let name = format!("virtio-{device_type}");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
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
        self.shared.core().device.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.shared.core().device.queue_sizes().to_vec()
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
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
        if core.stopped {
            return Err(VirtioError::Stopped);
        }
        let event_idx = activation.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let queues = activation
            .queues
            .iter()
            .enumerate()
            .map(|(index, state)| ring(index, state, event_idx))
            .collect::<Result<Vec<_>, _>>()?;
        core.call(|device| device.set_acked_features(activation.features))?;
        core.active = Some(Active {
            dispatcher: Dispatcher::new(queues.len()),
            queues: HostedQueues {
                queues,
                interrupt: Arc::clone(&self.shared.context.interrupt),
            },
        });
        self.shared.watch_all(&core).inspect_err(|_| {
            self.shared.deactivate(&mut core);
        })?;
        // Drivers may have filled a queue before they were ready to kick.
        self.shared.kick_all(&core);
        Ok(())
    }

    fn reset(&mut self) {
        let mut core = self.shared.core();
        self.shared.deactivate(&mut core);
        let reset = core.call(|device| device.reset());
        self.shared.check(&mut core, reset);
    }

    fn pause(&mut self) -> Result<Vec<RingPosition>, VirtioError> {
        // No handler runs while this has the lock, and none starts after.
        let mut core = self.shared.core();
        core.paused = true;
        Ok(match &core.active {
            Some(active) => active
                .queues
                .queues
                .iter()
                .map(|queue| queue.as_ref().map_or_else(RingPosition::default, position))
                .collect(),
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
        self.shared.deactivate(&mut core);
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

impl Core {
    /// Calls the device; a panic in it becomes an error, as it may be the guest's doing and must
    /// not end the process.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Device<GuestMemoryMmap>) -> T,
    ) -> Result<T, VirtioError> {
        catch_unwind(AssertUnwindSafe(|| call(self.device.as_mut())))
            .map_err(|_| VirtioError::Panic)
    }

    fn dispatch(
        &mut self,
        event: Event,
        memory: &GuestMemoryMmap,
        kicks: &[EventFd],
    ) -> Result<(), VirtioError> {
        let Self { device, active, .. } = self;
        let Some(active) = active else {
            return Ok(());
        };
        let left = catch_unwind(AssertUnwindSafe(|| {
            active
                .dispatcher
                .handle(event, device.as_mut(), memory, &mut active.queues)
        }))
        .map_err(|_| VirtioError::Panic)??;
        if left {
            for kick in active
                .dispatcher
                .take_pending()
                .filter_map(|i| kicks.get(i))
            {
                let _ = kick.write(1);
            }
        }
        Ok(())
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
                if let Some(kick) = self.context.kicks.get(index) {
                    // Nothing to read: a kick that an earlier look has taken.
                    let _ = kick.read();
                }
                Event::Kick(index)
            }
        };
        let served = core.dispatch(event, &self.context.memory, &self.context.kicks);
        self.check(&mut core, served);
        true
    }

    /// Stops the device for an error of its code.
    fn check(&self, core: &mut Core, result: Result<(), VirtioError>) {
        if let Err(error) = result {
            self.fail(core, error);
        }
    }

    fn fail(&self, core: &mut Core, error: VirtioError) {
        self.deactivate(core);
        // What a device is like after a panic, nobody knows; after an epoll error it has no thread.
        let for_good = !matches!(error, VirtioError::Device(_));
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
        if let Some(source) = core.device.event_source() {
            self.unwatch(&source);
        }
    }

    fn watch_all(&self, core: &Core) -> Result<(), VirtioError> {
        let failed = |source| VirtioError::Descriptor {
            what: "a watch of a descriptor",
            source,
        };
        for (index, kick) in (0_u64..).zip(self.context.kicks.iter()) {
            self.watch(kick, FIRST_KICK + index).map_err(failed)?;
        }
        match core.device.event_source() {
            Some(source) => self.watch(&source, SOURCE).map_err(failed),
            None => Ok(()),
        }
    }

    fn kick_all(&self, core: &Core) {
        let Some(active) = &core.active else { return };
        for (kick, queue) in self.context.kicks.iter().zip(&active.queues.queues) {
            if queue.is_some() {
                let _ = kick.write(1);
            }
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

/// The queue code's view of a checked queue, or `None` for one that the driver left alone.
fn ring(index: usize, state: &QueueState, event_idx: bool) -> Result<Option<Queue>, VirtioError> {
    if !state.ready {
        return Ok(None);
    }
    let make = || -> Result<Queue, virtio_queue::Error> {
        let mut queue = Queue::new(state.max_size)?;
        queue.try_set_size(state.size)?;
        queue.try_set_desc_table_address(GuestAddress(state.descriptor_table))?;
        queue.try_set_avail_ring_address(GuestAddress(state.avail_ring))?;
        queue.try_set_used_ring_address(GuestAddress(state.used_ring))?;
        queue.set_event_idx(event_idx);
        queue.set_next_avail(state.position.next_avail);
        queue.set_next_used(state.position.next_used);
        queue.set_ready(true);
        Ok(queue)
    };
    make().map(Some).map_err(|_| VirtioError::Ring {
        queue: index,
        reason: "the queue code refuses it",
    })
}

fn position(queue: &Queue) -> RingPosition {
    RingPosition {
        next_avail: queue.next_avail(),
        next_used: queue.next_used(),
    }
}
