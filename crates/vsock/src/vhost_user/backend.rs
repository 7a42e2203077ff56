//! What the library asks of a back end.

use std::cell::OnceCell;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use microvm_virtio::{
    CountedThread, Device, DeviceError, DeviceMeter, Dispatcher, Event, QueueSet,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{SealFlags, fcntl_get_seals};
use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{ShutdownHandle, VhostUserBackend, VringMutex, VringState, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{Queue, QueueT};
use vm_memory::{
    GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};
use vmm_sys_util::epoll::EventSet;

use super::end::{End, HostEnd};
use super::{lock, notify};
use crate::VsockDevice;

const QUEUES: usize = 3;
/// Event of the device's own descriptor; the library keeps `0..=QUEUES` to itself.
pub(super) const DEVICE_EVENT: u16 = 4;
/// Event that ends the queue thread.
pub(super) const EXIT_EVENT: u16 = 5;
/// Event that stands for kicks of the queues whose work was left over.
pub(super) const AGAIN_EVENT: u16 = 6;

pub(super) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The device and what the host remembers of its queues.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) device: VsockDevice,
    dispatcher: Dispatcher,
    /// Where each available ring was left. A front end that starts elsewhere serves a driver
    /// that began anew: vhost-user has no other word for a reset that QEMU would use.
    left_at: [Option<u16>; QUEUES],
}

/// What all threads of a host share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hosted: Mutex<Option<Hosted>>,
    pub(super) memory: Memory,
    pub(super) stop: OwnedFd,
    pub(super) exit: OwnedFd,
    pub(super) again: OwnedFd,
    pub(super) wanted_end: Mutex<Option<HostEnd>>,
    pub(super) meter: Arc<DeviceMeter>,
    front_end: Mutex<FrontEnd>,
    pub(super) end: End,
}

/// The connection to the front end, to be cut from other threads.
#[derive(Default)]
struct FrontEnd(Option<ShutdownHandle>);

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FrontEnd").field(&self.0.is_some()).finish()
    }
}

impl Shared {
    pub(super) fn new(device: VsockDevice) -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let hosted = Hosted {
            device,
            dispatcher: Dispatcher::new(QUEUES),
            left_at: [None; QUEUES],
        };
        Ok(Self {
            hosted: Mutex::new(Some(hosted)),
            memory: Memory::new(GuestMemoryMmap::new()),
            stop: event()?,
            exit: event()?,
            again: event()?,
            wanted_end: Mutex::new(None),
            meter: Arc::new(DeviceMeter::new(QUEUES)),
            front_end: Mutex::new(FrontEnd::default()),
            end: End::default(),
        })
    }

    /// Has the host end. The first reason is the one that is told.
    pub(super) fn ask_to_end(&self, end: HostEnd) {
        // Held until the connection is cut: `follow` either sees the wish or is seen here.
        let front_end = lock(&self.front_end);
        lock(&self.wanted_end).get_or_insert(end);
        notify(&self.stop);
        if let Some(handle) = &front_end.0 {
            handle.shutdown();
        }
    }

    /// The front end is connected.
    pub(super) fn follow(&self, handle: Option<ShutdownHandle>) {
        let mut front_end = lock(&self.front_end);
        if lock(&self.wanted_end).is_some()
            && let Some(handle) = &handle
        {
            handle.shutdown();
        }
        front_end.0 = handle;
    }

    /// Drops the device and the guest's memory.
    pub(super) fn dispose(&self) {
        lock(&self.front_end).0 = None;
        lock(&self.hosted).take();
        if let Ok(memory) = self.memory.lock() {
            memory.replace(GuestMemoryMmap::new());
        }
    }

    /// Lets the device work on an event.
    fn work(
        &self,
        event: u16,
        vrings: [MutexGuard<'_, VringState<Memory>>; QUEUES],
    ) -> Result<(), DeviceError> {
        let mut hosted = lock(&self.hosted);
        let Some(hosted) = hosted.as_mut() else {
            return Ok(());
        };
        let mut vrings = Vrings {
            rings: vrings,
            meter: &self.meter,
        };
        let restarted = (0..QUEUES).any(|index| {
            let now = vrings.queue(index).map(|queue| queue.next_avail());
            let then = hosted.left_at.get(index).copied().flatten();
            matches!((now, then), (Some(now), Some(then)) if now != then)
        });
        if restarted {
            Device::<GuestMemoryMmap>::reset(&mut hosted.device);
            hosted.dispatcher = Dispatcher::new(QUEUES);
            hosted.left_at = [None; QUEUES];
        }
        let kicks: Vec<Event> = match event {
            DEVICE_EVENT => vec![Event::Host],
            AGAIN_EVENT => {
                let _ = rustix::io::read(&self.again, &mut [0; 8]);
                hosted.dispatcher.take_pending().map(Event::Kick).collect()
            }
            queue => {
                let queue = usize::from(queue);
                // The library read the descriptor, and not how often it was written.
                self.meter.kicked(queue, 1);
                vec![Event::Kick(queue)]
            }
        };
        let memory = self.memory.memory();
        let mut result = Ok(());
        for kick in kicks {
            let Hosted {
                device, dispatcher, ..
            } = hosted;
            match dispatcher.handle(kick, device, &*memory, &mut vrings) {
                Ok(false) => {}
                Ok(true) => notify(&self.again),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (index, left_at) in hosted.left_at.iter_mut().enumerate() {
            if let Some(queue) = vrings.queue(index) {
                *left_at = Some(queue.next_avail());
            }
        }
        result
    }
}

/// The size of a ring is the front end's business: QEMU offers 1024 entries over MMIO, whatever the
/// device would like.
const LARGEST_RING: u16 = 1024;

impl VhostUserBackend for Shared {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        let hosted = lock(&self.hosted);
        let sizes = hosted
            .as_ref()
            .map(|hosted| Device::<GuestMemoryMmap>::queue_sizes(&hosted.device));
        let largest = sizes.and_then(|sizes| sizes.iter().max().copied());
        usize::from(largest.unwrap_or(1).max(LARGEST_RING))
    }

    fn features(&self) -> u64 {
        let hosted = lock(&self.hosted);
        let device = hosted.as_ref().map_or(0, |hosted| {
            Device::<GuestMemoryMmap>::features(&hosted.device)
        });
        device | 1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        if let Some(hosted) = lock(&self.hosted).as_mut() {
            Device::<GuestMemoryMmap>::set_acked_features(&mut hosted.device, features);
        }
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ
    }

    // The library tells its queues itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = vec![0; size as usize];
        if let Some(hosted) = lock(&self.hosted).as_ref() {
            Device::<GuestMemoryMmap>::read_config(&hosted.device, offset, &mut config);
        }
        config
    }

    // The memory is the one that was handed to the library.
    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        let unsealed = memory.memory().iter().any(|region| !keeps_its_size(region));
        if !unsealed {
            return Ok(());
        }
        if let Ok(memory) = memory.lock() {
            memory.replace(GuestMemoryMmap::new());
        }
        let reason = "The front end's memory is not sealed against shrinking";
        self.ask_to_end(HostEnd::Failed(reason.to_owned()));
        Err(io::Error::other(reason))
    }

    fn stop_vring(&self, _index: u32) -> io::Result<()> {
        // Whoever holds the lock may be at work on the queue.
        drop(lock(&self.hosted));
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _flags: EventSet,
        vrings: &[VringMutex<Memory>],
        _thread: usize,
    ) -> io::Result<()> {
        count_this_thread(&self.meter);
        if event == EXIT_EVENT {
            return Err(io::Error::other("The host ends"));
        }
        let [rx, tx, events] = vrings else {
            return Ok(());
        };
        let vrings = [rx.get_mut(), tx.get_mut(), events.get_mut()];
        let reason = match catch_unwind(AssertUnwindSafe(|| self.work(event, vrings))) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => describe(&error),
            Err(_) => "The device panicked".to_owned(),
        };
        self.ask_to_end(HostEnd::Failed(reason.clone()));
        Err(io::Error::other(reason))
    }
}

/// Whether no one can shorten the file of a region. Otherwise whoever has it open could, and an
/// access beyond its new end would end this process with SIGBUS.
fn keeps_its_size(region: &GuestRegionMmap) -> bool {
    region.file_offset().is_some_and(|offset| {
        fcntl_get_seals(offset.file()).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
    })
}

/// Has the library's queue thread, which serves one host all its life, counted from its first
/// event to its end.
fn count_this_thread(meter: &DeviceMeter) {
    thread_local! {
        static COUNTED: OnceCell<CountedThread> = const { OnceCell::new() };
    }
    COUNTED.with(|counted| {
        counted.get_or_init(|| meter.thread().count());
    });
}

/// The vrings of a host, while the device works on them.
struct Vrings<'a> {
    rings: [MutexGuard<'a, VringState<Memory>>; QUEUES],
    meter: &'a DeviceMeter,
}

impl QueueSet for Vrings<'_> {
    fn count(&self) -> usize {
        QUEUES
    }

    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        let vring = self.rings.get_mut(index)?;
        let usable = vring.is_enabled() && vring.get_queue().ready();
        usable.then(|| vring.get_queue_mut())
    }

    fn signal(&self, index: usize) {
        if let Some(vring) = self.rings.get(index) {
            self.meter.interrupted(index);
            // The front end's descriptor: where it is full, the interrupt is pending already.
            let _ = vring.signal_used_queue();
        }
    }

    fn meter(&self) -> Option<&DeviceMeter> {
        Some(self.meter)
    }
}

/// An error with all its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
