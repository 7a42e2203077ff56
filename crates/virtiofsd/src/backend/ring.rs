//! A ring that knows what is under way: it is only given back when nothing is, and it can be taken out of service.
//!
//! A stop in the middle of the work leaves the driver told not to kick, and its kick read. So each start looks at the
//! ring once, unasked: by a kick of the ring's own.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use log::warn;
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{DescriptorChain, Error as QueueError, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryLoadGuard};

use super::{AtomicMemory, Memory};

/// One request's buffers.
pub type Chain = DescriptorChain<GuestMemoryLoadGuard<Memory>>;

type Inner = VringMutex<AtomicMemory>;

/// Why a ring cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("More requests are under way than the {0} that the queue has room for")]
    TooMany(usize),
}

/// A ring with its requests under way.
#[derive(Clone)]
pub struct Ring {
    vring: Inner,
    work: Arc<Work>,
}

#[derive(Debug, Default)]
struct Work {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// Out of service until the front end starts the ring anew.
    failed: bool,
    /// Where the front end is told.
    error: Option<File>,
    /// The descriptor that the driver kicks.
    kick: Option<File>,
}

impl Ring {
    /// Requests that the ring has room for.
    pub fn size(&self) -> usize {
        self.vring.get_ref().get_queue().size().into()
    }

    /// The next request, which [`finish`](Self::finish) has to follow. None while the ring is not to be worked on.
    ///
    /// A driver that offers a request again before it has got it back is refused: it could have this process collect
    /// requests without end.
    pub fn take(&self, memory: &AtomicMemory) -> Result<Option<Chain>, RingError> {
        let mut vring = self.vring.get_mut();
        let mut state = self.work.lock();
        if !state.lets_work(&vring) {
            return Ok(None);
        }
        let Some(next) = vring.get_queue_mut().iter(memory.memory())?.next() else {
            return Ok(None);
        };
        let size = vring.get_queue().size().into();
        if state.under_way >= size {
            return Err(RingError::TooMany(size));
        }
        state.under_way += 1;
        Ok(Some(next))
    }

    /// Switches kicks off before the ring is worked on; false while it is not to be.
    pub fn begin(&self) -> Result<bool, RingError> {
        let mut vring = self.vring.get_mut();
        let usable = self.work.lock().lets_work(&vring);
        if usable {
            vring.disable_notification()?;
        }
        Ok(usable)
    }

    /// Switches kicks on again; true when a request came in before that.
    pub fn end(&self) -> Result<bool, RingError> {
        let mut vring = self.vring.get_mut();
        // What was given back meanwhile is not written to.
        if !self.work.lock().lets_work(&vring) {
            return Ok(false);
        }
        Ok(vring.enable_notification()?)
    }

    /// Has the ring's thread look at it, after what else it has to do.
    pub fn look_again(&self) {
        if let Some(kick) = &mut self.work.lock().kick {
            // A full one is readable already.
            let _ = kick.write(&1u64.to_ne_bytes());
        }
    }

    /// Gives a request back with `length` bytes written, and interrupts the driver if it wants that.
    pub fn finish(&self, head: u16, length: u32) -> Result<(), QueueError> {
        let mut vring = self.vring.get_mut();
        let result = vring
            .add_used(head, length)
            .and_then(|()| vring.needs_notification());
        let wanted = !matches!(result, Ok(false));
        if wanted && vring.get_call().as_ref().is_some_and(takes_more) {
            // It has been closed, or holds an interrupt already.
            let _ = vring.signal_used_queue();
        }
        // Before the next one can be taken: the driver may have offered it already.
        self.work.done();
        drop(vring);
        result.map(drop)
    }

    /// Takes the ring out of service with a request that cannot be answered, and tells the front end.
    pub fn fail(&self, taken: bool) {
        let mut state = self.work.lock();
        state.failed = true;
        if let Some(file) = &mut state.error
            && takes_more(file)
        {
            // Nobody is left to be told where it fails.
            let _ = file.write(&1u64.to_ne_bytes());
        }
        drop(state);
        if taken {
            self.work.done();
        }
    }

    fn wait_until_idle(&self) {
        let mut state = self.work.lock();
        while state.under_way > 0 {
            state = self
                .work
                .idle
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn lets_work(&self, vring: &VringState<AtomicMemory>) -> bool {
        let queue = vring.get_queue();
        // Both addresses are zero until the front end has told them.
        let placed = queue.avail_ring() != 0 && queue.used_ring() != 0;
        !self.failed && vring.is_enabled() && queue.ready() && placed
    }
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) {
        let mut state = self.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            self.idle.notify_all();
        }
    }
}

impl<'a> VringStateGuard<'a, AtomicMemory> for Ring {
    type G = <Inner as VringStateGuard<'a, AtomicMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, AtomicMemory> for Ring {
    type G = <Inner as VringStateMutGuard<'a, AtomicMemory>>::G;
}

impl VringT<AtomicMemory> for Ring {
    fn new(mem: AtomicMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        Ok(Self {
            vring: Inner::new(mem, max_queue_size)?,
            work: Arc::default(),
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, AtomicMemory>>::G {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, AtomicMemory>>::G {
        self.vring.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.vring.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.vring.needs_notification()
    }

    // A disabled ring is not worked on, once the front end has its answer.
    fn set_enabled(&self, enabled: bool) {
        self.vring.set_enabled(enabled);
        match enabled {
            true => self.look_again(),
            false => self.wait_until_idle(),
        }
    }

    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), QueueError> {
        self.vring.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.vring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.vring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.vring.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.vring.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.vring.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    // Ready is started: with a new driver, or after a pause. Not ready is given back, and then nothing may be under
    // way that would write to it.
    fn set_queue_ready(&self, ready: bool) {
        if ready {
            self.work.lock().failed = false;
        }
        self.vring.set_queue_ready(ready);
        match ready {
            true => self.look_again(),
            false => self.wait_until_idle(),
        }
    }

    fn set_kick(&self, file: Option<File>) {
        let file = file.and_then(unblocked);
        self.work.lock().kick = file.as_ref().and_then(|file| {
            file.try_clone()
                .inspect_err(|error| warn!("A queue will not be looked at when it starts: {error}"))
                .ok()
        });
        self.vring.set_kick(file);
    }

    // An error ends the thread of the library's that reads: the descriptor is none that counts events.
    fn read_kick(&self) -> io::Result<bool> {
        match self.vring.read_kick() {
            // Somebody else has read it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            result => result.inspect_err(|_| self.fail(false)),
        }
    }

    fn set_call(&self, file: Option<File>) {
        self.vring.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.work.lock().error = file;
    }
}

/// A kick that neither waits to be read nor to be written: it must not hold a ring, and everybody who waits for it, for
/// ever. Only this process reads it, so nobody else notices.
fn unblocked(file: File) -> Option<File> {
    let number = file.as_raw_fd();
    // SAFETY: an open descriptor, and a command without an argument.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    // SAFETY: an open descriptor, and numbers.
    let result = unsafe { libc::fcntl(number, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if flags < 0 || result < 0 {
        warn!("A kick is done without: {}", io::Error::last_os_error());
        return None;
    }
    Some(file)
}

/// Whether a write to a descriptor of the front end's would not wait. One that would has been told already, and a ring
/// must not wait for who does not read. (The descriptor's flags are the front end's too, which may want to wait.)
fn takes_more(descriptor: &impl AsRawFd) -> bool {
    let mut polled = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry, as is said.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready == 1 && polled.revents & libc::POLLOUT != 0
}
