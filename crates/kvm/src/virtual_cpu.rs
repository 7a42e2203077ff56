//! One vCPU: its registers and the rest of its state.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use kvm_bindings::{
    CpuId, KVM_CAP_XSAVE2, KVM_MAX_CPUID_ENTRIES, KVM_MAX_MSR_ENTRIES, Msrs, Xsave,
    kvm_cpuid_entry2, kvm_debugregs, kvm_fpu, kvm_guest_debug, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;

use crate::error::{Error, retry};
use crate::runner::VirtualCpuRunner;
use crate::virtual_machine::VirtualMachine;
use crate::xsave;

/// The kernel answers `E2BIG` to as many as its limit already.
const MSRS_PER_CALL: usize = KVM_MAX_MSR_ENTRIES - 1;

/// A vCPU of a [`VirtualMachine`], which it keeps open.
///
/// Every method is one ioctl of the name that it resembles, made on the thread that calls.
/// [`VirtualCpu::into_runner`] makes it run.
#[derive(Debug)]
pub struct VirtualCpu {
    // Drops before the machine, which may be closed by that.
    fd: VcpuFd,
    machine: VirtualMachine,
    id: u64,
    /// What [`VirtualCpu::xsave_size`] gives, once it was asked for: Linux enables nothing more for
    /// guests of a process that has made a vCPU.
    xsave_size: OnceLock<(usize, bool)>,
}

/// Writes the getter and the setter of a state that is one plain structure.
macro_rules! plain_state {
    ($(
        $what:literal, $type:ty,
        $get:ident = $get_call:ident $get_ioctl:literal,
        $set:ident = $set_call:ident $set_ioctl:literal;
    )*) => {$(
        #[doc = concat!("Reads ", $what, ".")]
        ///
        /// # Errors
        ///
        #[doc = concat!("Where `", $get_ioctl, "` fails.")]
        pub fn $get(&self) -> Result<$type, Error> {
            retry(|| self.fd.$get_call()).map_err(Error::of($get_ioctl))
        }

        #[doc = concat!("Sets ", $what, ".")]
        ///
        /// # Errors
        ///
        #[doc = concat!("Where `", $set_ioctl, "` fails.")]
        pub fn $set(&self, state: &$type) -> Result<(), Error> {
            retry(|| self.fd.$set_call(state)).map_err(Error::of($set_ioctl))
        }
    )*};
}

impl VirtualCpu {
    pub(crate) fn new(fd: VcpuFd, machine: VirtualMachine, id: u64) -> Self {
        Self {
            fd,
            machine,
            id,
            xsave_size: OnceLock::new(),
        }
    }

    /// Number of the vCPU in its machine.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The machine that it belongs to.
    #[must_use]
    pub fn machine(&self) -> &VirtualMachine {
        &self.machine
    }

    plain_state! {
        "the general registers, RIP and RFLAGS", kvm_regs,
            get_regs = get_regs "KVM_GET_REGS", set_regs = set_regs "KVM_SET_REGS";
        "the segment, control and descriptor table registers", kvm_sregs,
            get_sregs = get_sregs "KVM_GET_SREGS", set_sregs = set_sregs "KVM_SET_SREGS";
        "the x87 and SSE registers", kvm_fpu,
            get_fpu = get_fpu "KVM_GET_FPU", set_fpu = set_fpu "KVM_SET_FPU";
        "pending exceptions, interrupts, NMIs and SMIs", kvm_vcpu_events,
            get_vcpu_events = get_vcpu_events "KVM_GET_VCPU_EVENTS",
            set_vcpu_events = set_vcpu_events "KVM_SET_VCPU_EVENTS";
        "the extended control registers (XCR0)", kvm_xcrs,
            get_xcrs = get_xcrs "KVM_GET_XCRS", set_xcrs = set_xcrs "KVM_SET_XCRS";
        "the debug registers (DR0 to DR7)", kvm_debugregs,
            get_debug_regs = get_debug_regs "KVM_GET_DEBUGREGS",
            set_debug_regs = set_debug_regs "KVM_SET_DEBUGREGS";
        "the local APIC's registers (of an in-kernel interrupt controller)", kvm_lapic_state,
            get_lapic = get_lapic "KVM_GET_LAPIC", set_lapic = set_lapic "KVM_SET_LAPIC";
    }

    /// Reads, changes and sets the general registers, and hands back what `change` returns.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_REGS` or `KVM_SET_REGS` fails.
    pub fn modify_regs<R>(&self, change: impl FnOnce(&mut kvm_regs) -> R) -> Result<R, Error> {
        let mut regs = self.get_regs()?;
        let result = change(&mut regs);
        self.set_regs(&regs)?;
        Ok(result)
    }

    /// As [`VirtualCpu::modify_regs`], for the segment and control registers.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_SREGS` or `KVM_SET_SREGS` fails.
    pub fn modify_sregs<R>(&self, change: impl FnOnce(&mut kvm_sregs) -> R) -> Result<R, Error> {
        let mut sregs = self.get_sregs()?;
        let result = change(&mut sregs);
        self.set_sregs(&sregs)?;
        Ok(result)
    }

    /// Reads the model-specific registers of these numbers, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Msr`] names the first one that KVM refuses; or where `KVM_GET_MSRS` fails.
    pub fn get_msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
        let call = "KVM_GET_MSRS";
        let mut values = Vec::with_capacity(indices.len());
        for indices in indices.chunks(MSRS_PER_CALL) {
            let entries: Vec<_> = indices
                .iter()
                .map(|&index| kvm_msr_entry {
                    index,
                    ..Default::default()
                })
                .collect();
            let mut msrs = msr_list(&entries, call)?;
            let count = retry(|| self.fd.get_msrs(&mut msrs)).map_err(Error::of(call))?;
            if let Some(&index) = indices.get(count) {
                return Err(Error::Msr { index, call });
            }
            values.extend_from_slice(msrs.as_slice());
        }
        Ok(values)
    }

    /// Sets these model-specific registers, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Msr`] names the first one that KVM refuses (those before it are set then); or
    /// where `KVM_SET_MSRS` fails.
    pub fn set_msrs(&self, entries: &[kvm_msr_entry]) -> Result<(), Error> {
        let call = "KVM_SET_MSRS";
        for entries in entries.chunks(MSRS_PER_CALL) {
            let msrs = msr_list(entries, call)?;
            let count = retry(|| self.fd.set_msrs(&msrs)).map_err(Error::of(call))?;
            if let Some(entry) = entries.get(count) {
                let index = entry.index;
                return Err(Error::Msr { index, call });
            }
        }
        Ok(())
    }

    /// Reads the CPUID that the guest sees.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_CPUID2` fails.
    pub fn get_cpuid2(&self) -> Result<CpuId, Error> {
        let call = "KVM_GET_CPUID2";
        let cpuid = retry(|| self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES)).map_err(Error::of(call))?;
        // Kernels before 6.3 do not say how many entries they wrote: the rest is still zero.
        let zero = kvm_cpuid_entry2::default();
        let entries = cpuid.as_slice();
        let count = entries
            .iter()
            .rposition(|entry| *entry != zero)
            .map_or(0, |last| last + 1);
        let written = entries.get(..count).unwrap_or(entries);
        CpuId::from_entries(written).map_err(|_| Error::TooManyEntries { call, count })
    }

    /// Sets the CPUID that the guest sees.
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_CPUID2` fails.
    pub fn set_cpuid2(&self, cpuid: &CpuId) -> Result<(), Error> {
        retry(|| self.fd.set_cpuid2(cpuid)).map_err(Error::of("KVM_SET_CPUID2"))
    }

    /// Reads whether the vCPU runs, is halted or waits for INIT or SIPI.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_MP_STATE` fails.
    pub fn get_mp_state(&self) -> Result<kvm_mp_state, Error> {
        retry(|| self.fd.get_mp_state()).map_err(Error::of("KVM_GET_MP_STATE"))
    }

    /// Sets whether the vCPU runs, is halted or waits for INIT or SIPI.
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_MP_STATE` fails.
    pub fn set_mp_state(&self, state: kvm_mp_state) -> Result<(), Error> {
        retry(|| self.fd.set_mp_state(state)).map_err(Error::of("KVM_SET_MP_STATE"))
    }

    /// Switches single steps and breakpoints on or off. Some hosts take this and do nothing.
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_GUEST_DEBUG` fails.
    pub fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<(), Error> {
        retry(|| self.fd.set_guest_debug(debug)).map_err(Error::of("KVM_SET_GUEST_DEBUG"))
    }

    /// Reads the extended state (x87, SSE, AVX and later ones), in as many bytes as it takes on
    /// this host.
    ///
    /// # Errors
    ///
    /// Where `KVM_GET_XSAVE2` or `KVM_GET_XSAVE` fails.
    pub fn get_xsave(&self) -> Result<Xsave, Error> {
        let (bytes, dynamic) = self.xsave_size()?;
        let mut state = xsave::empty(bytes)?;
        if dynamic {
            // SAFETY: the buffer was just made as large as the kernel says that it writes.
            retry(|| unsafe { self.fd.get_xsave2(&mut state) })
                .map_err(Error::of("KVM_GET_XSAVE2"))?;
        } else {
            let plain = retry(|| self.fd.get_xsave()).map_err(Error::of("KVM_GET_XSAVE"))?;
            // SAFETY: only the fixed part is written; the length of the rest stays as it is.
            unsafe { state.as_mut_fam_struct() }.xsave.region = plain.region;
        }
        Ok(state)
    }

    /// Sets the extended state, as [`VirtualCpu::get_xsave`] read it.
    ///
    /// # Errors
    ///
    /// [`Error::XsaveTooShort`] where the kernel would read past its end, or `KVM_SET_XSAVE`
    /// fails.
    pub fn set_xsave(&self, state: &Xsave) -> Result<(), Error> {
        let (needed, _) = self.xsave_size()?;
        let found = xsave::FIXED + size_of_val(state.as_slice());
        if found < needed {
            return Err(Error::XsaveTooShort { found, needed });
        }
        // SAFETY: the kernel reads `needed` bytes, and the buffer is at least that long.
        retry(|| unsafe { self.fd.set_xsave2(state) }).map_err(Error::of("KVM_SET_XSAVE"))
    }

    /// Bytes of the extended state on this host, and whether it may be larger than `kvm_xsave`.
    fn xsave_size(&self) -> Result<(usize, bool), Error> {
        if let Some(size) = self.xsave_size.get() {
            return Ok(*size);
        }
        // The constant is small and positive.
        let capability = i32::try_from(KVM_CAP_XSAVE2).unwrap_or_default();
        let bytes = usize::try_from(self.machine.check_extension(capability)?).unwrap_or(0);
        Ok(*self
            .xsave_size
            .get_or_init(|| (bytes.max(xsave::FIXED), bytes > 0)))
    }

    /// Shares the run state with the kernel, so that the vCPU can run.
    ///
    /// # Errors
    ///
    /// [`Error::RunStateTooSmall`] where the kernel shares less than `kvm_run` takes, `mmap`
    /// fails, or no signal is free to interrupt vCPUs.
    pub fn into_runner(self) -> Result<VirtualCpuRunner, Error> {
        VirtualCpuRunner::new(self)
    }

    /// The handle below, for ioctls that this crate does not wrap.
    #[must_use]
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    pub(crate) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }
}

impl AsFd for VirtualCpu {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) }
    }
}

fn msr_list(entries: &[kvm_msr_entry], call: &'static str) -> Result<Msrs, Error> {
    Msrs::from_entries(entries).map_err(|_| Error::TooManyEntries {
        call,
        count: entries.len(),
    })
}
