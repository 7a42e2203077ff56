//! The device's state on its way to or from another daemon: vhost-user's `SET_DEVICE_STATE_FD` and
//! `CHECK_DEVICE_STATE`, and the preparation that the memory log announces.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use log::warn;
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};
use virtiofsd::filesystem::{FileSystem, SerializableFileSystem};
use virtiofsd::server::Server;

use super::state_pipe::{FrontEnd, StatePipe};

/// Bytes of the largest state that is taken: some millions of files.
const LARGEST: u64 = 1 << 30;

/// Transfers under way, of one connection. What has not been applied when it is dropped never is: a front end that comes
/// next must not get the state that another one sends.
#[derive(Debug, Default)]
pub struct DeviceState {
    dropped: Arc<Mutex<bool>>,
    preparation: Mutex<Option<Preparation>>,
    transfer: Mutex<Option<Transfer>>,
}

/// A thread that writes or reads a state.
#[derive(Debug)]
struct Transfer {
    thread: JoinHandle<io::Result<()>>,
    front_end: Arc<FrontEnd>,
}

/// A thread that finds out how the receiving side can find each inode.
#[derive(Debug)]
struct Preparation {
    thread: JoinHandle<()>,
    cancel: Arc<AtomicBool>,
}

impl Preparation {
    fn start<F>(server: &Arc<Server<F>>) -> io::Result<Self>
    where
        F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
    {
        let cancel = Arc::new(AtomicBool::new(false));
        let server = Arc::clone(server);
        let cancelled = Arc::clone(&cancel);
        let thread = std::thread::Builder::new()
            .name("preparation".to_owned())
            .spawn(move || server.prepare_serialization(cancelled))?;
        Ok(Self { thread, cancel })
    }

    fn cancel(self) {
        self.cancel.store(true, Ordering::Relaxed);
        // Its outcome is not wanted any more.
        let _ = self.thread.join();
    }
}

impl DeviceState {
    /// Follows the memory log: a front end that has switched it on is about to migrate, and one that switches it off
    /// has given that up. (The specification does not say the latter, but QEMU does it then, and only then.)
    pub fn migrate<F>(&self, server: &Arc<Server<F>>, migrates: bool)
    where
        F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
    {
        let mut preparation = lock(&self.preparation);
        if !migrates {
            if let Some(preparation) = preparation.take() {
                preparation.cancel();
            }
        } else if preparation.is_none() {
            match Preparation::start(server) {
                Ok(started) => *preparation = Some(started),
                Err(error) => warn!("The state will be collected late: no thread: {error}"),
            }
        }
    }

    /// Begins to write the state to `file`, or to read it from there.
    pub fn begin<F>(
        &self,
        server: &Arc<Server<F>>,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<()>
    where
        F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
    {
        if phase != VhostTransferStatePhase::STOPPED {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("Transfer in phase {phase:?} is not supported"),
            ));
        }
        let mut transfer = lock(&self.transfer);
        if let Some(running) = transfer.as_ref()
            && !running.thread.is_finished()
        {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let preparation = lock(&self.preparation).take();
        let server = Arc::clone(server);
        let front_end = Arc::new(FrontEnd::new()?);
        let pipe = StatePipe::new(file, Arc::clone(&front_end));
        let thread = std::thread::Builder::new().name("transfer".to_owned());
        let thread = match direction {
            VhostTransferStateDirection::SAVE => {
                thread.spawn(move || save(&server, preparation, pipe))?
            }
            VhostTransferStateDirection::LOAD => {
                if let Some(preparation) = preparation {
                    warn!("Cancelling serialization preparation because of incoming migration");
                    preparation.cancel();
                }
                let dropped = Arc::clone(&self.dropped);
                thread.spawn(move || {
                    load(&server, pipe, &dropped)
                        .map_err(|error| explain("Failed to load state", &error))
                })?
            }
        };
        *transfer = Some(Transfer { thread, front_end });
        Ok(())
    }

    /// Waits for the end of what was begun, and tells how it went. Not for long where the other end of the state's
    /// descriptor is kept open.
    pub fn finish(&self) -> io::Result<()> {
        let transfer = lock(&self.transfer).take().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "Front-end attempts to check migration state, but no migration has been done",
            )
        })?;
        transfer.front_end.asks();
        transfer
            .thread
            .join()
            .map_err(|_| io::Error::other("Failed to join the migration thread"))?
    }
}

impl Drop for DeviceState {
    fn drop(&mut self) {
        // Held while a state is applied, which takes no time of a front end's.
        *lock(&self.dropped) = true;
        if let Some(transfer) = lock(&self.transfer).take() {
            transfer.front_end.goes();
        }
        if let Some(preparation) = lock(&self.preparation).take() {
            preparation.cancel();
        }
    }
}

/// Reads the whole state, for as long as it takes to come, and applies it if it is still wanted then.
fn load<F>(server: &Server<F>, pipe: StatePipe, dropped: &Mutex<bool>) -> io::Result<()>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    let mut state = memory_file()?;
    copy(pipe, &mut state, LARGEST)?;
    state.rewind()?;
    let dropped = lock(dropped);
    if *dropped {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    server.deserialize_and_apply(state)
}

/// Copies all there is. (The library's own function takes system calls that are not on the list.)
fn copy(mut from: impl Read, mut to: impl Write, largest: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut left = largest;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read.is_empty() {
            return Ok(());
        }
        left = left
            .checked_sub(read.len() as u64)
            .ok_or_else(|| io::Error::other(format!("It is larger than {largest} bytes")))?;
        to.write_all(read)?;
    }
}

fn memory_file() -> io::Result<File> {
    // SAFETY: a literal name and a constant.
    let number = unsafe { libc::memfd_create(c"state".as_ptr(), libc::MFD_CLOEXEC) };
    match number {
        0.. => {
            // SAFETY: the kernel has just made it.
            Ok(unsafe { File::from_raw_fd(number) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn save<F>(server: &Server<F>, preparation: Option<Preparation>, pipe: StatePipe) -> io::Result<()>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    match preparation {
        // It should be done; if not, the machine stands still a bit longer.
        Some(preparation) => preparation
            .thread
            .join()
            .map_err(|_| io::Error::other("Failed to finalize serialization preparation"))?,
        // QEMU does not log memory when it takes a snapshot.
        None => {
            warn!("The front end did not announce the migration: collecting data now");
            server.prepare_serialization(Arc::new(AtomicBool::new(false)));
        }
    }
    let send = || {
        let mut state = memory_file()?;
        server.serialize(state.try_clone()?)?;
        state.rewind()?;
        copy(state, pipe, u64::MAX)
    };
    send().map_err(|error| explain("Failed to save state", &error))
}

fn explain(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use virtiofsd::filesystem::DirectoryIterator;

    use super::*;

    /// A file system whose preparation takes until it is cancelled, or for ever.
    struct Endless {
        begun: Mutex<Sender<()>>,
        cancelled: Mutex<Sender<()>>,
    }

    struct NoEntries;

    impl DirectoryIterator for NoEntries {
        fn next(&mut self) -> Option<virtiofsd::filesystem::DirEntry<'_>> {
            None
        }
    }

    impl FileSystem for Endless {
        type Inode = u64;
        type Handle = u64;
        type DirIter = NoEntries;
    }

    impl SerializableFileSystem for Endless {
        fn prepare_serialization(&self, cancel: Arc<AtomicBool>) {
            lock(&self.begun).send(()).unwrap();
            while !cancel.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            lock(&self.cancelled).send(()).unwrap();
        }
    }

    /// A device, and what tells that a preparation has begun, and that it was cancelled.
    fn device() -> (DeviceState, Arc<Server<Endless>>, [Receiver<()>; 2]) {
        let (begun, has_begun) = channel();
        let (cancelled, was_cancelled) = channel();
        let [begun, cancelled] = [begun, cancelled].map(Mutex::new);
        let server = Arc::new(Server::new(Endless { begun, cancelled }));
        (DeviceState::default(), server, [has_begun, was_cancelled])
    }

    #[test]
    fn a_preparation_under_way_ends_when_it_is_not_wanted_any_more() {
        let (state, server, [begun, cancelled]) = device();
        state.migrate(&server, true);
        begun.recv().unwrap();
        // A second announcement is the same one.
        state.migrate(&server, true);
        assert!(begun.try_recv().is_err() && cancelled.try_recv().is_err());
        state.migrate(&server, false);
        cancelled.try_recv().unwrap();
        // The next announcement begins anew, and the end of the connection ends that too.
        state.migrate(&server, true);
        begun.recv().unwrap();
        drop(state);
        cancelled.try_recv().unwrap();
    }

    #[test]
    fn a_state_that_comes_ends_the_preparation_of_one_that_was_to_go() {
        let (state, server, [begun, cancelled]) = device();
        state.migrate(&server, true);
        begun.recv().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let load = VhostTransferStateDirection::LOAD;
        let stopped = VhostTransferStatePhase::STOPPED;
        let file = File::from(OwnedFd::from(reader));
        state.begin(&server, load, stopped, file).unwrap();
        cancelled.try_recv().unwrap();
    }

    #[test]
    fn a_state_is_copied_unless_it_is_too_large() {
        let mut copied = Vec::new();
        copy(&[7; 100_000][..], &mut copied, 100_000).unwrap();
        assert_eq!(copied, [7; 100_000]);
        let error = copy(&[7; 100_001][..], io::sink(), 100_000).unwrap_err();
        assert_eq!(error.to_string(), "It is larger than 100000 bytes");
    }
}
