//! The one thread that starts and reaps every helper of this process.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::child::{Child, End, ExitStatus};
use crate::error::SpawnError;
use crate::launch::{ChildStack, launch};
use crate::prepare::Prepared;

const THREAD_NAME: &str = "microvm-spawner";
/// Marks the eventfd among the epoll events; all others carry a pidfd's number.
const REQUEST: u64 = u64::MAX;

static SPAWNER: Mutex<Option<Arc<Spawner>>> = Mutex::new(None);

/// The caller's side of the thread.
#[derive(Debug)]
pub(crate) struct Spawner {
    requests: Mutex<VecDeque<Request>>,
    wake: OwnedFd,
}

#[derive(Debug)]
struct Request {
    prepared: Prepared,
    answer: SyncSender<Result<Child, SpawnError>>,
}

impl Spawner {
    /// The spawner of this process; the first call starts its thread, which then lives as long as the process.
    pub(crate) fn global() -> Result<Arc<Self>, SpawnError> {
        let mut global = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = &*global {
            return Ok(Arc::clone(spawner));
        }
        let spawner = Self::start().map_err(SpawnError::Thread)?;
        Ok(Arc::clone(global.insert(spawner)))
    }

    fn start() -> io::Result<Arc<Self>> {
        // SAFETY: the call takes numbers only.
        let wake = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the call takes numbers only.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        watch(&epoll, wake.as_raw_fd(), REQUEST)?;
        let stack = ChildStack::new()?;
        let spawner = Arc::new(Self {
            requests: Mutex::default(),
            wake,
        });
        let thread = SpawnerThread {
            spawner: Arc::clone(&spawner),
            epoll,
            stack,
            children: HashMap::new(),
        };
        thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || thread.run())?;
        Ok(spawner)
    }

    pub(crate) fn spawn(&self, prepared: Prepared) -> Result<Child, SpawnError> {
        let (answer, answered) = sync_channel(1);
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(Request { prepared, answer });
        let one: u64 = 1;
        // A full counter (EAGAIN) is readable too, so there is no failure to act on.
        // SAFETY: the buffer is eight bytes long.
        unsafe {
            libc::write(
                self.wake.as_raw_fd(),
                (&raw const one).cast(),
                size_of::<u64>(),
            )
        };
        let gone = |_| Err(SpawnError::Thread(io::Error::other("The thread has ended")));
        answered.recv().unwrap_or_else(gone)
    }

    fn next(&self) -> Option<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

struct SpawnerThread {
    spawner: Arc<Spawner>,
    epoll: OwnedFd,
    stack: ChildStack,
    children: HashMap<RawFd, (Arc<OwnedFd>, Arc<End>)>,
}

impl SpawnerThread {
    fn run(mut self) {
        block_all_signals();
        loop {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for exactly the one event that is asked for.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, -1) };
            if count != 1 {
                // Only EINTR is possible on a live epoll descriptor, and signals are blocked.
                continue;
            }
            match event.u64 {
                REQUEST => self.serve_requests(),
                pidfd => self.reap(RawFd::try_from(pidfd).unwrap_or(-1)),
            }
        }
    }

    fn serve_requests(&mut self) {
        let mut count: u64 = 0;
        // SAFETY: the buffer is eight bytes long; the descriptor does not block.
        unsafe {
            libc::read(
                self.spawner.wake.as_raw_fd(),
                (&raw mut count).cast(),
                size_of::<u64>(),
            )
        };
        while let Some(Request { prepared, answer }) = self.spawner.next() {
            // A caller that no longer listens leaves a child that is reaped like any other.
            let _ = answer.send(self.spawn(prepared));
        }
    }

    fn spawn(&mut self, prepared: Prepared) -> Result<Child, SpawnError> {
        let launched = launch(&prepared, &self.stack)?;
        let pidfd = Arc::new(launched.pidfd);
        let end = Arc::new(End::default());
        let child = Child {
            pid: launched.pid.unsigned_abs(),
            pidfd: Arc::clone(&pidfd),
            end_signal: prepared.end_signal,
            end: Arc::clone(&end),
            captured: prepared.captured,
        };
        let number = pidfd.as_raw_fd();
        if let Err(source) = watch(&self.epoll, number, u64::from(number.unsigned_abs())) {
            // Without a watch nobody would reap it: undo the start. (Out of epoll watches or kernel memory.)
            let _ = child.kill(libc::SIGKILL);
            let _ = wait_for(&pidfd);
            return Err(SpawnError::Resource {
                what: "watch",
                source,
            });
        }
        self.children.insert(number, (pidfd, end));
        Ok(child)
    }

    fn reap(&mut self, number: RawFd) {
        let Some((pidfd, end)) = self.children.remove(&number) else {
            return;
        };
        // SAFETY: removal needs no event; the pidfd is still open.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                number,
                ptr::null_mut(),
            )
        };
        let status = wait_for(&pidfd);
        // Whoever hears of the end may count what is still open.
        drop(pidfd);
        end.tell(status);
    }
}

/// Takes the status of a process that is ending.
fn wait_for(pidfd: &OwnedFd) -> ExitStatus {
    let Ok(id) = libc::id_t::try_from(pidfd.as_raw_fd()) else {
        return ExitStatus::Unknown;
    };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` has room for the structure that waitid fills in.
    while unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), libc::WEXITED) } != 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return ExitStatus::Unknown;
        }
    }
    // SAFETY: all zeroes is a valid siginfo_t, and waitid has filled it in since.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills in the SIGCHLD member of the union.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => ExitStatus::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => ExitStatus::Signaled(status),
        _ => ExitStatus::Unknown,
    }
}

fn watch(epoll: &OwnedFd, fd: RawFd, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: data,
    };
    // SAFETY: the event lives through the call.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Children inherit the mask: no handler of this process may run in a child that shares its memory.
fn block_all_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initializes the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled above; no old mask is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}
