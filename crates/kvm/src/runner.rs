//! Runs a vCPU.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MEMORY_FAULT, KVMIO, kvm_regs, kvm_run, kvm_sync_regs,
};
use vmm_sys_util::ioctl::ioctl;

use crate::error::{Errno, Error};
use crate::exit::{Exit, decode};
use crate::immediate_exit::ImmediateExit;
use crate::virtual_cpu::VirtualCpu;

vmm_sys_util::ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);

/// A vCPU that can run: it shares its run state with the kernel.
///
/// A runner may move between threads, though KVM is faster when it stays on one.
///
/// ```no_run
/// use microvm_kvm::{Exit, Kvm};
///
/// let vm = Kvm::open()?.create_vm()?;
/// let mut runner = vm.create_vcpu(0)?.into_runner()?;
/// loop {
///     match runner.run()? {
///         Exit::IoOut { port: 0x3f8, data, .. } => print!("{}", String::from_utf8_lossy(data)),
///         Exit::IoIn { data, .. } => data.fill(0xff),
///         Exit::Hlt => break,
///         exit => panic!("{exit:?}"),
///     }
/// }
/// # Ok::<(), microvm_kvm::Error>(())
/// ```
#[derive(Debug)]
pub struct VirtualCpuRunner {
    // Drops first: it refers to the vCPU's file.
    run: RunMapping,
    immediate_exit: ImmediateExit,
    /// Whether the run state describes an exit: the last run was neither interrupted nor failed.
    exited: bool,
    vcpu: VirtualCpu,
}

impl VirtualCpuRunner {
    pub(crate) fn new(vcpu: VirtualCpu) -> Result<Self, Error> {
        let length = vcpu.machine().fd().run_size();
        check_length(length)?;
        let run = RunMapping::new(&vcpu, length)?;
        // SAFETY: the flag is in the mapping, and `drop` disconnects before that goes.
        let immediate_exit = unsafe { ImmediateExit::new(run.immediate_exit()) }?;
        Ok(Self {
            run,
            immediate_exit,
            exited: false,
            vcpu,
        })
    }

    /// The vCPU, for the state that this type has no method for.
    #[must_use]
    pub fn vcpu(&self) -> &VirtualCpu {
        &self.vcpu
    }

    /// Reads the general registers, as [`VirtualCpu::get_regs`].
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_REGS` fails.
    pub fn get_regs(&self) -> Result<kvm_regs, Error> {
        self.vcpu.get_regs()
    }

    /// Sets the general registers, as [`VirtualCpu::set_regs`].
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_REGS` fails.
    pub fn set_regs(&self, regs: &kvm_regs) -> Result<(), Error> {
        self.vcpu.set_regs(regs)
    }

    /// Reads, changes and sets the general registers, and hands back what `change` returns.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_REGS` or `KVM_SET_REGS` fails.
    pub fn modify_regs<R>(&self, change: impl FnOnce(&mut kvm_regs) -> R) -> Result<R, Error> {
        self.vcpu.modify_regs(change)
    }

    /// Gives `access` the run state that is shared with the kernel, and hands back what it
    /// returns. `immediate_exit` belongs to [`VirtualCpuRunner::immediate_exit`]: a value set here
    /// works once, as a request does.
    pub fn with_raw_run_state<R>(&mut self, access: impl FnOnce(&mut kvm_run) -> R) -> R {
        // The same memory as `self.run`, by the mapping that kvm-ioctls makes, so that this
        // reference aliases nothing that other threads use.
        access(self.vcpu.fd_mut().get_kvm_run())
    }

    /// Has the kernel copy these registers (a set of `KVM_SYNC_X86_` bits) to
    /// [`VirtualCpuRunner::synced`] after each run, which saves the calls that read them. Needs
    /// `KVM_CAP_SYNC_REGS`.
    pub fn sync_after_runs(&mut self, valid: u64) {
        self.with_raw_run_state(|run| run.kvm_valid_regs = valid);
    }

    /// Has the kernel take these registers (a set of `KVM_SYNC_X86_` bits) from
    /// [`VirtualCpuRunner::synced`] at the next run, once.
    pub fn sync_before_run(&mut self, dirty: u64) {
        self.with_raw_run_state(|run| run.kvm_dirty_regs |= dirty);
    }

    /// The registers that are exchanged with the kernel when the vCPU runs.
    pub fn synced(&mut self) -> &mut kvm_sync_regs {
        self.vcpu.fd_mut().sync_regs_mut()
    }

    /// A handle that makes the vCPU leave the guest, for other threads.
    #[must_use]
    pub fn immediate_exit(&self) -> ImmediateExit {
        self.immediate_exit.clone()
    }

    /// Runs the vCPU until it leaves the guest, and tells why. Answers to an exit are written to
    /// its data before the next run.
    ///
    /// A signal to this thread is no error: it ends the run with [`Exit::Interrupted`], as does
    /// [`ImmediateExit::request`].
    ///
    /// # Errors
    ///
    /// Where `KVM_RUN` fails.
    pub fn run(&mut self) -> Result<Exit<'_>, Error> {
        let result = self.run_raw();
        self.after(result)
    }

    /// As [`VirtualCpuRunner::run`], but `None` where the guest wrote one byte to `port`: the exit
    /// that takes least to tell, for guests that say by it that they want something.
    ///
    /// # Errors
    ///
    /// Where `KVM_RUN` fails.
    #[inline]
    pub fn run_to_port(&mut self, port: u16) -> Result<Option<Exit<'_>>, Error> {
        let result = self.run_raw();
        if result.is_ok() && self.run.wrote_byte(port) {
            return Ok(None);
        }
        self.after(result).map(Some)
    }

    /// As [`VirtualCpuRunner::run`], but leaves the exit in the raw run state, and a signal is an
    /// error (`EINTR`).
    ///
    /// # Errors
    ///
    /// Where `KVM_RUN` fails.
    pub fn run_raw(&mut self) -> Result<(), Error> {
        self.immediate_exit.enter()?;
        let result = self.enter_guest();
        let interrupted = matches!(&result, Err(error) if error.errno() == libc::EINTR);
        self.immediate_exit.leave(interrupted);
        self.exited = result.is_ok();
        result
    }

    /// Completes the exit before, without running the guest: an answered read reaches its
    /// register, and the instruction counts as done. Do this before the vCPU's state is read to be
    /// kept. [`Exit::Interrupted`] says that it is complete; a string instruction may ask for more
    /// instead. Requests for an immediate exit are left for the next run.
    ///
    /// # Errors
    ///
    /// Where `KVM_RUN` fails.
    pub fn complete_exit(&mut self) -> Result<Exit<'_>, Error> {
        self.immediate_exit.hold_back();
        let result = self.enter_guest();
        self.immediate_exit.release();
        self.after(result)
    }

    /// The exit that the last run ended with, once more; [`Exit::Interrupted`] where that failed
    /// or there was none.
    ///
    /// # Errors
    ///
    /// Where the run state contradicts itself.
    pub fn last_exit(&mut self) -> Result<Exit<'_>, Error> {
        if !self.exited {
            return Ok(Exit::Interrupted);
        }
        // SAFETY: the mapping is the vCPU's run state and lives as long as `self`, which the exit
        // borrows; other threads touch the immediate-exit flag only, which is apart.
        unsafe { decode(self.run.start, self.run.length) }
    }

    /// The exit that a `KVM_RUN` of this result ended with.
    fn after(&mut self, result: Result<(), Error>) -> Result<Exit<'_>, Error> {
        self.exited = match result {
            Ok(()) => true,
            Err(error) => match error.errno() {
                libc::EINTR => false,
                // This one exit comes with an error number.
                libc::EFAULT | libc::EHWPOISON
                    if self.run.exit_reason() == KVM_EXIT_MEMORY_FAULT =>
                {
                    true
                }
                _ => {
                    self.exited = false;
                    return Err(error);
                }
            },
        };
        self.last_exit()
    }

    fn enter_guest(&self) -> Result<(), Error> {
        loop {
            // SAFETY: the descriptor is a vCPU's, and KVM_RUN takes no argument. The kernel writes
            // the run state meanwhile, of which nobody holds references: exits borrow `self`.
            if unsafe { ioctl(self.vcpu.fd(), KVM_RUN()) } >= 0 {
                return Ok(());
            }
            let error = Errno::last();
            // A vCPU that waited for its start (INIT, SIPI) got it.
            if error.errno() != libc::EAGAIN {
                return Err(Error::of("KVM_RUN")(error));
            }
        }
    }
}

impl Drop for VirtualCpuRunner {
    fn drop(&mut self) {
        self.immediate_exit.disconnect();
    }
}

fn check_length(mapped: usize) -> Result<(), Error> {
    let needed = size_of::<kvm_run>();
    if mapped < needed {
        return Err(Error::RunStateTooSmall { mapped, needed });
    }
    Ok(())
}

/// The run state of a vCPU, mapped; unmapped when dropped.
///
/// kvm-ioctls maps it too, but hands out the whole as one `&mut`, which must not exist while
/// another thread sets the immediate-exit flag; and it tells less about exits.
#[derive(Debug)]
struct RunMapping {
    start: NonNull<kvm_run>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; access goes by `&mut` of the owner,
// but for the immediate-exit flag, which is an atomic.
unsafe impl Send for RunMapping {}

impl RunMapping {
    fn new(vcpu: &VirtualCpu, length: usize) -> Result<Self, Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = vcpu.fd().as_raw_fd();
        let hint = std::ptr::null_mut();
        // SAFETY: the kernel chooses the place, so that nothing else is replaced.
        let start = unsafe { libc::mmap(hint, length, protection, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self {
                start: start.cast(),
                length,
            }),
            _ => Err(Error::of("mmap")(Errno::last())),
        }
    }

    fn exit_reason(&self) -> u32 {
        // SAFETY: in the mapping, which is at least `kvm_run` long.
        unsafe { (*self.start.as_ptr()).exit_reason }
    }

    /// Whether the exit is a byte that the guest wrote to this port.
    #[inline]
    fn wrote_byte(&self, port: u16) -> bool {
        if self.exit_reason() != KVM_EXIT_IO {
            return false;
        }
        // SAFETY: in the mapping, which is at least `kvm_run` long, and nobody writes this part.
        let details = unsafe { &(*self.start.as_ptr()).__bindgen_anon_1 };
        // SAFETY: plain integers, for which any bytes are valid.
        let io = unsafe { details.io };
        u32::from(io.direction) == KVM_EXIT_IO_OUT && (io.port, io.size, io.count) == (port, 1, 1)
    }

    fn immediate_exit(&self) -> NonNull<u8> {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: a place in the mapping, which is at least `kvm_run` long.
        unsafe { self.start.cast::<u8>().add(offset) }
    }
}

impl Drop for RunMapping {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, and nobody refers to it any more: exits borrow the
        // runner, and the immediate-exit flag is disconnected.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_state_shorter_than_kvm_run_is_out_of_memory() {
        let needed = size_of::<kvm_run>();
        assert_eq!(check_length(needed), Ok(()));
        let error = check_length(needed - 1).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM);
        assert_eq!(error.call(), "KVM_GET_VCPU_MMAP_SIZE");
    }
}
