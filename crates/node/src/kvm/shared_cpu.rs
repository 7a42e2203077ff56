//! A vCPU that JavaScript's thread and the vCPU's own thread share.
//!
//! Runs happen on a thread of their own, one for each vCPU, which holds the lock meanwhile. The
//! JavaScript thread never waits for that lock: while the vCPU runs its calls fail with
//! `ERR_KVM_BUSY`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::JoinHandle;

use microvm_kvm::{ImmediateExit, VirtualCpu, VirtualCpuRunner, block_other_signals};
use napi::tokio::sync::oneshot;

use super::exit::{BindingExit, from_native};
use super::{closed, lock};
use crate::cleanup::Stop;
use crate::error::BindingError;

/// Where the exit of a run goes.
type Reply = oneshot::Sender<Result<BindingExit, BindingError>>;

/// What JavaScript's objects hold: the vCPU and the way to its thread.
#[derive(Debug)]
pub(super) struct CpuHandle {
    shared: Arc<SharedCpu>,
    thread: Mutex<Option<RunThread>>,
}

/// What the thread holds: not the handle, so that it ends when the handle is collected.
#[derive(Debug)]
struct SharedCpu {
    id: u64,
    cpu: Mutex<Cpu>,
    /// Whether a run has begun whose exit has not been told yet.
    running: AtomicBool,
    closed: AtomicBool,
    immediate_exit: OnceLock<ImmediateExit>,
}

#[derive(Debug)]
enum Cpu {
    Idle(VirtualCpu),
    Runner(VirtualCpuRunner),
    Gone,
}

#[derive(Debug)]
struct RunThread {
    runs: Sender<Reply>,
    thread: JoinHandle<()>,
}

impl CpuHandle {
    pub(super) fn new(vcpu: VirtualCpu) -> Self {
        Self {
            shared: Arc::new(SharedCpu {
                id: vcpu.id(),
                cpu: Mutex::new(Cpu::Idle(vcpu)),
                running: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                immediate_exit: OnceLock::new(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// Number of the vCPU in its machine.
    pub(super) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Gives `f` the vCPU, unless it runs or is closed.
    pub(super) fn with<R>(
        &self,
        f: impl FnOnce(&VirtualCpu) -> Result<R, BindingError>,
    ) -> Result<R, BindingError> {
        match &*self.shared.try_lock()? {
            Cpu::Idle(vcpu) => f(vcpu),
            Cpu::Runner(runner) => f(runner.vcpu()),
            Cpu::Gone => Err(closed("vCPU")),
        }
    }

    /// Gives `f` the runner, unless it runs or is closed.
    pub(super) fn with_runner<R>(
        &self,
        f: impl FnOnce(&mut VirtualCpuRunner) -> Result<R, BindingError>,
    ) -> Result<R, BindingError> {
        match &mut *self.shared.try_lock()? {
            Cpu::Runner(runner) => f(runner),
            Cpu::Idle(_) | Cpu::Gone => Err(closed("vCPU")),
        }
    }

    /// Makes the vCPU able to run.
    pub(super) fn make_runner(&self) -> Result<(), BindingError> {
        let mut cpu = self.shared.try_lock()?;
        match std::mem::replace(&mut *cpu, Cpu::Gone) {
            Cpu::Idle(vcpu) => {
                let runner = vcpu.into_runner()?;
                // There is none yet: the vCPU was idle.
                let _ = self.shared.immediate_exit.set(runner.immediate_exit());
                *cpu = Cpu::Runner(runner);
                Ok(())
            }
            Cpu::Runner(runner) => {
                *cpu = Cpu::Runner(runner);
                Err(busy("The vCPU has a runner already"))
            }
            Cpu::Gone => Err(closed("vCPU")),
        }
    }

    /// Starts a run on the vCPU's thread; the exit can be received.
    pub(super) fn run(
        &self,
    ) -> Result<oneshot::Receiver<Result<BindingExit, BindingError>>, BindingError> {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(closed("vCPU"));
        }
        if self.shared.running.swap(true, Ordering::SeqCst) {
            return Err(busy("The vCPU is running already"));
        }
        let (reply, exit) = oneshot::channel();
        let sent = self.send(reply);
        if sent.is_err() {
            self.shared.running.store(false, Ordering::SeqCst);
        }
        sent.map(|()| exit)
    }

    fn send(&self, reply: Reply) -> Result<(), BindingError> {
        let mut thread = lock(&self.thread);
        let thread = match &mut *thread {
            Some(thread) => thread,
            none => none.insert(self.start_thread()?),
        };
        thread
            .runs
            .send(reply)
            .map_err(|_| BindingError::internal("The vCPU's thread has ended".to_owned()))
    }

    fn start_thread(&self) -> Result<RunThread, BindingError> {
        let (runs, jobs) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name(format!("kvm-vcpu-{}", self.id()))
            .spawn(move || shared.serve(&jobs))
            .map(|thread| RunThread { runs, thread })
            .map_err(|error| BindingError::system("Cannot start the vCPU's thread", &error))
    }

    /// Ends the run, or the next one.
    pub(super) fn interrupt(&self) -> Result<(), BindingError> {
        match self.shared.immediate_exit.get() {
            Some(immediate_exit) => Ok(immediate_exit.request()?),
            None => Ok(()),
        }
    }

    /// Takes an interruption back that has not ended a run.
    pub(super) fn withdraw_interrupt(&self) -> bool {
        self.shared
            .immediate_exit
            .get()
            .is_some_and(ImmediateExit::withdraw)
    }

    /// Refuses runs from now on, and ends the one under way.
    pub(super) fn begin_close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Where the thread cannot be signalled the run still ends by itself, at its next exit.
        let _ = self.interrupt();
    }

    /// Closes the vCPU; waits for its thread.
    pub(super) fn close(&self) {
        self.begin_close();
        let thread = lock(&self.thread).take();
        if let Some(RunThread { runs, thread }) = thread {
            drop(runs);
            // A panic there was reported to whoever waited for the run.
            let _ = thread.join();
        }
        let cpu = std::mem::replace(&mut *lock(&self.shared.cpu), Cpu::Gone);
        drop(cpu);
    }
}

impl SharedCpu {
    /// What the vCPU's thread does.
    fn serve(&self, runs: &Receiver<Reply>) {
        let masked = block_other_signals();
        for reply in runs {
            let result = match (&masked, &mut *lock(&self.cpu)) {
                (Err(error), _) => Err(error.clone().into()),
                (Ok(()), Cpu::Runner(runner)) => {
                    runner.run().map(from_native).map_err(BindingError::from)
                }
                (Ok(()), Cpu::Idle(_) | Cpu::Gone) => Err(closed("vCPU")),
            };
            self.running.store(false, Ordering::SeqCst);
            // Nobody waits any more where the environment has ended.
            let _ = reply.send(result);
        }
    }

    fn try_lock(&self) -> Result<MutexGuard<'_, Cpu>, BindingError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed("vCPU"));
        }
        match self.cpu.try_lock() {
            Ok(cpu) => Ok(cpu),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(busy("The vCPU is running")),
        }
    }
}

impl Stop for CpuHandle {
    fn stop(&self) {
        self.close();
    }
}

impl Drop for CpuHandle {
    /// Lets the thread end, and the vCPU with it, without waiting: JavaScript's collector calls
    /// this.
    fn drop(&mut self) {
        self.begin_close();
    }
}

fn busy(message: &str) -> BindingError {
    BindingError::coded("ERR_KVM_BUSY", message.to_owned())
}
