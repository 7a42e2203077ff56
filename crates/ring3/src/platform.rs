//! What a platform is to those who run programs on it, and the one on KVM.

use std::fmt::Debug;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use microvm_kvm::Kvm;

use crate::address_space::AddressSpace;
use crate::context::Context;
use crate::error::Error;
use crate::global::initialize;
use crate::layout::{MAX_USER_ADDRESS, MIN_USER_ADDRESS};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::traits::HostTraits;

/// Bytes that one mapping should have at most: entries are written for every page at once.
const MAP_UNIT: u64 = 16 << 20;

/// A new address space, or when to ask again.
#[derive(Debug)]
pub enum NewAddressSpace {
    /// It is there.
    Ready(AddressSpace),
    /// None is free. Something is received when one may be.
    Wait(Receiver<()>),
}

/// Makes address spaces, contexts and memory, and says what callers may count on.
pub trait Platform: Debug + Send + Sync {
    /// Whether address spaces copy to and from programs themselves.
    fn supports_address_space_io(&self) -> bool;

    /// Whether a context has to give its address space up before another one can run.
    fn cooperatively_schedules_address_spaces(&self) -> bool;

    /// Whether a switch tells that the program's processor was taken away in between.
    fn detects_cpu_preemption(&self) -> bool;

    /// Whether the platform has page tables of its own, so that memory of this process that
    /// changes place is not followed.
    fn owns_page_tables(&self) -> bool;

    /// Whether a memory barrier on all threads of this process is one for programs, too.
    fn has_global_memory_barrier(&self) -> bool;

    /// Bytes that one mapping should have at most.
    fn map_unit(&self) -> u64;

    /// First address that programs may use.
    fn min_user_address(&self) -> u64;

    /// First address that programs may not use.
    fn max_user_address(&self) -> u64;

    /// Makes an empty address space.
    ///
    /// # Errors
    ///
    /// Where the host has no memory for it.
    fn new_address_space(&self) -> Result<NewAddressSpace, Error>;

    /// Makes a context whose extended state is that of a reset.
    fn new_context(&self) -> Context;

    /// Makes `length` bytes of zeroed memory, a positive multiple of 4 KiB. The host gives pages
    /// when they are first used.
    ///
    /// # Errors
    ///
    /// Where the length is wrong, or the host or the machine has no room.
    fn new_memory(&self, length: u64) -> Result<Arc<Memory>, Error>;

    /// Makes memory of `length` bytes of a file from `offset` on, both multiples of 4 KiB. What
    /// programs write reaches the file.
    ///
    /// Where the file becomes shorter, programs that touch what is gone get
    /// [`Exit::BusError`](crate::Exit::BusError). Where the file's server (FUSE, NFS) does not
    /// answer, the thread whose program touches a page hangs in the kernel, and nothing ends its
    /// switch: map only files that you trust to be read.
    ///
    /// # Errors
    ///
    /// Where the file cannot be mapped so, or the machine has no room.
    fn memory_of_file(
        &self,
        file: File,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<Arc<Memory>, Error>;

    /// What the self-test found out about this host.
    fn host_traits(&self) -> HostTraits;
}

/// How a machine is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmOptions {
    /// Most vCPUs, and so most contexts that run at the same time. Default: as many as the host
    /// has processors, and never more than 128.
    pub vcpus: Option<u64>,
}

/// The platform on KVM: one virtual machine.
#[derive(Debug)]
pub struct KvmPlatform {
    machine: Arc<Machine>,
}

impl KvmPlatform {
    /// Makes a machine. The first one of a process takes longer: the host is tested.
    ///
    /// The device is closed in any case.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the host's results would be wrong, or where KVM fails. An error
    /// of the first machine's test is the error of all later ones.
    pub fn new(device: Kvm, options: KvmOptions) -> Result<Self, Error> {
        let (global, traits) = initialize(&device)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u64::try_from(processors).unwrap_or(1);
        let vcpus = options.vcpus.unwrap_or(processors);
        let machine = Machine::new(&device, global, traits, vcpus)?;
        Ok(Self { machine })
    }

    /// As [`Platform::new_address_space`]; there is always one.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn address_space(&self) -> Result<AddressSpace, Error> {
        AddressSpace::new(Arc::clone(&self.machine))
    }

    /// How many vCPUs there are so far.
    #[must_use]
    pub fn vcpus(&self) -> u64 {
        self.machine.pool.made()
    }

    /// Most vCPUs that there will be; fewer than asked for where the host has refused one.
    #[must_use]
    pub fn most_vcpus(&self) -> u64 {
        self.machine.pool.most()
    }

    pub(crate) fn of(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
}

impl Platform for KvmPlatform {
    fn supports_address_space_io(&self) -> bool {
        false
    }

    fn cooperatively_schedules_address_spaces(&self) -> bool {
        false
    }

    fn detects_cpu_preemption(&self) -> bool {
        false
    }

    fn owns_page_tables(&self) -> bool {
        true
    }

    fn has_global_memory_barrier(&self) -> bool {
        // Programs run on threads of this process, in its own address space as the host sees it.
        true
    }

    fn map_unit(&self) -> u64 {
        MAP_UNIT
    }

    fn min_user_address(&self) -> u64 {
        MIN_USER_ADDRESS
    }

    fn max_user_address(&self) -> u64 {
        MAX_USER_ADDRESS
    }

    fn new_address_space(&self) -> Result<NewAddressSpace, Error> {
        self.address_space().map(NewAddressSpace::Ready)
    }

    fn new_context(&self) -> Context {
        Context::new(Arc::clone(&self.machine))
    }

    fn new_memory(&self, length: u64) -> Result<Arc<Memory>, Error> {
        Memory::anonymous(Arc::clone(&self.machine), length).map(Arc::new)
    }

    fn memory_of_file(
        &self,
        file: File,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<Arc<Memory>, Error> {
        Memory::file(Arc::clone(&self.machine), file, offset, length, writable).map(Arc::new)
    }

    fn host_traits(&self) -> HostTraits {
        self.machine.traits
    }
}
