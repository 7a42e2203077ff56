//! The device as a vhost-user back end: its features, configuration space and rings.
//!
//! Ring 0 has the high-priority requests (FORGET, INTERRUPT), the others any. Each request ring has a thread, the
//! first of which also has ring 0; with a pool the threads only hand requests over.
//!
//! Nothing that a guest writes ends the process. A request that cannot be read is answered with an error where it can
//! be answered, and takes its ring out of service otherwise: the front end hears of that by the ring's error
//! descriptor, and the ring is good again when the driver starts it anew.

mod device_state;
mod pool;
mod request;
mod ring;
mod state_pipe;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, PoisonError, RwLock};

use log::{error, warn};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vhost_user_backend::{VhostUserBackend, VringEpollHandler};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::server::Server;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::device_state::DeviceState;
use self::pool::Pool;
use self::request::{Outcome, work_on};
use self::ring::{Chain, Ring, RingError};
use crate::error::Error;
use crate::memory_holes;

/// Guest memory, with a log of writes for live migration.
pub type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type AtomicMemory = GuestMemoryAtomic<Memory>;

/// Bytes of the tag's field (virtio 1.2, 5.11.4).
pub const TAG_MAX: usize = 36;
/// Largest ring there is (virtio 1.2, 2.7).
const QUEUE_SIZE: usize = 32768;
/// Rings besides those for requests. There is none for notifications: VIRTIO_FS_F_NOTIFICATION is not offered.
const HIGH_PRIORITY_QUEUES: usize = 1;
/// Event that ends a thread; the library keeps the numbers of rings and the one after them to itself.
const END_EVENT: u16 = u16::MAX;

/// What the device looks like from outside.
#[derive(Clone, Debug)]
pub struct Shape {
    pub tag: Option<String>,
    /// 1 to 63.
    pub request_queues: u16,
    /// Threads of the pool; without any, each request ring's own thread works.
    pub pool_size: usize,
}

/// The device of one connection.
pub struct Backend<F: FileSystem + Send + Sync + 'static> {
    server: Arc<Server<F>>,
    memory: RwLock<Option<AtomicMemory>>,
    pool: Option<Pool>,
    state: DeviceState,
    end: EventFd,
    tag: Option<String>,
    request_queues: u16,
}

impl<F: FileSystem + SerializableFileSystem + Send + Sync + 'static> Backend<F> {
    pub fn new(server: Arc<Server<F>>, shape: &Shape) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Backend(error.to_string());
        let threads = shape.pool_size.max(shape.request_queues.into());
        if threads > 1 {
            // Better known now than in each thread. This thread does not mind.
            unshare_fs().map_err(Error::UnshareFs)?;
        }
        let pool = match shape.pool_size {
            0 => None,
            size => Some(Pool::start(size, own_working_folder).map_err(failed)?),
        };
        Ok(Self {
            server,
            memory: RwLock::default(),
            pool,
            state: DeviceState::default(),
            end: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(failed)?,
            tag: shape.tag.clone(),
            request_queues: shape.request_queues,
        })
    }

    /// Has a thread of the library's end by [`end`](Self::end).
    pub fn watch_end(&self, handler: &VringEpollHandler<Arc<Self>>) -> io::Result<()> {
        handler.register_listener(self.end.as_raw_fd(), EventSet::IN, END_EVENT.into())
    }

    /// Ends the threads that [`watch_end`](Self::watch_end) told of it.
    pub fn end(&self) {
        // A full counter is set already.
        let _ = self.end.write(1);
    }

    /// Works on a ring until it is empty. Kicks are switched off meanwhile; after they are on again one more look
    /// tells whether a request came in between.
    ///
    /// A driver that never stops offering gets its turn again after the other rings and the end of the connection.
    fn work_on_ring(&self, ring: &Ring) -> Result<(), RingError> {
        let Some(memory) = self.memory() else {
            warn!("A ring was kicked before there was memory");
            return Ok(());
        };
        let mut turn = ring.size();
        while ring.begin()? {
            while let Some(chain) = ring.take(&memory)? {
                self.hand_over(ring, chain, &memory);
                turn = turn.saturating_sub(1);
                if turn == 0 {
                    ring.look_again();
                    return Ok(());
                }
            }
            if !ring.end()? {
                break;
            }
        }
        Ok(())
    }

    /// Guest memory as it is now. Nothing is held: who changes it does not wait for a guest.
    fn memory(&self) -> Option<AtomicMemory> {
        self.memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hand_over(&self, ring: &Ring, chain: Chain, memory: &AtomicMemory) {
        let Some(pool) = &self.pool else {
            return answer(&self.server, ring, chain, memory);
        };
        let server = Arc::clone(&self.server);
        let ring = ring.clone();
        let memory = memory.clone();
        pool.submit(Box::new(move || answer(&server, &ring, chain, &memory)));
    }
}

/// Works on one request and gives it back.
fn answer<F: FileSystem + Sync>(
    server: &Server<F>,
    ring: &Ring,
    chain: Chain,
    memory: &AtomicMemory,
) {
    let head = chain.head_index();
    let outcome = work_on(server, &memory.memory(), chain);
    if memory_holes::torn() {
        // Its answer may be in memory that only this process has. Who kicked the ring says why it fails.
        return ring.fail(true);
    }
    match outcome {
        Outcome::Answered(length) => {
            if let Err(error) = ring.finish(head, length) {
                error!("A request could not be given back, its queue is out of service: {error}");
                ring.fail(false);
            }
        }
        Outcome::Unanswerable(reason) => {
            error!("A request cannot be answered, its queue is out of service: {reason}");
            ring.fail(true);
        }
    }
}

/// Gives this thread a working folder and umask of its own: extended attributes are reached through the working
/// folder (`fchdir`), which threads share otherwise.
fn unshare_fs() -> io::Result<()> {
    // SAFETY: takes a number only.
    match unsafe { libc::unshare(libc::CLONE_FS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_working_folder() {
    if let Err(error) = unshare_fs() {
        // It was tried at the start, so this is not to be expected.
        error!("{}", Error::UnshareFs(error));
    }
}

thread_local! {
    static HAS_OWN_FOLDER: Cell<bool> = const { Cell::new(false) };
}

impl<F: FileSystem + SerializableFileSystem + Send + Sync + 'static> VhostUserBackend
    for Backend<F>
{
    type Bitmap = BitmapMmapRegion;
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        HIGH_PRIORITY_QUEUES + usize::from(self.request_queues)
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | VhostUserVirtioFeatures::LOG_ALL.bits()
    }

    /// No BACKEND_REQ: there is nothing that the device would ask the front end for.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let always = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
            | VhostUserProtocolFeatures::RESET_DEVICE;
        match self.tag {
            Some(_) => always | VhostUserProtocolFeatures::CONFIG,
            None => always,
        }
    }

    /// The tag, padded with NUL to its 36 bytes, and the number of request queues (virtio 1.2, 5.11.4).
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = self.tag.clone().unwrap_or_default().into_bytes();
        config.resize(TAG_MAX, 0);
        config.extend(u32::from(self.request_queues).to_le_bytes());
        let mut wanted: Vec<u8> = config
            .into_iter()
            .skip(offset as usize)
            .take(size as usize)
            .collect();
        wanted.resize(size as usize, 0);
        wanted
    }

    fn acked_features(&self, features: u64) {
        let migrates = features & VhostUserVirtioFeatures::LOG_ALL.bits() != 0;
        self.state.migrate(&self.server, migrates);
    }

    fn reset_device(&self) {
        self.server.destroy();
    }

    // Each ring knows for itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: AtomicMemory) -> io::Result<()> {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let first = 0b11;
        match self.pool {
            Some(_) => vec![u64::MAX >> (63 - u32::from(self.request_queues).min(63))],
            None => std::iter::once(first)
                .chain((2..=u32::from(self.request_queues)).map(|ring| 1 << ring))
                .collect(),
        }
    }

    fn handle_event(
        &self,
        event: u16,
        _flags: EventSet,
        rings: &[Ring],
        _thread: usize,
    ) -> io::Result<()> {
        if event == END_EVENT {
            return Err(io::Error::other("The connection has ended"));
        }
        if self.request_queues > 1 && !HAS_OWN_FOLDER.replace(true) {
            own_working_folder();
        }
        let Some(ring) = rings.get(usize::from(event)) else {
            return Ok(());
        };
        // An error would end the thread, and with it all of its rings.
        if let Err(error) = self.work_on_ring(ring) {
            error!("A queue cannot be read, it is out of service: {error}");
            ring.fail(false);
        }
        if memory_holes::torn() {
            error!("A queue is out of service: the front end has cut off memory that it told of");
            ring.fail(false);
        }
        Ok(())
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<Option<File>> {
        // The library tells the front end that it failed, and drops the reason.
        self.state
            .begin(&self.server, direction, phase, file)
            .inspect_err(|error| error!("Failed to initiate state (de-)serialization: {error}"))?;
        Ok(None)
    }

    fn check_device_state(&self) -> io::Result<()> {
        self.state
            .finish()
            .inspect_err(|error| error!("Migration failed: {error}"))
    }
}
