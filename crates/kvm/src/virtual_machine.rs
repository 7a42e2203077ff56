//! One virtual machine: its memory slots and the making of its vCPUs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Errno, Error, retry};
use crate::kvm::check_extension;
use crate::memory_region::{MemoryRegion, PAGE_SIZE};
use crate::virtual_cpu::VirtualCpu;

/// A virtual machine; clones are the same machine.
///
/// Its vCPUs keep it, and it keeps the memory of its slots: the descriptor is closed when the
/// last owner is gone, and only then are the regions let go. Closing takes the kernel up to tens
/// of milliseconds.
#[derive(Clone, Debug)]
pub struct VirtualMachine {
    inner: Arc<Inner>,
}

/// Fields drop in this order: the machine is closed before its memory goes.
#[derive(Debug)]
struct Inner {
    fd: VmFd,
    slots: Mutex<BTreeMap<u32, Slot>>,
}

/// A memory slot as the kernel has it.
#[derive(Clone, Debug)]
struct Slot {
    flags: u32,
    address: u64,
    region: Arc<MemoryRegion>,
}

impl Slot {
    /// Whether KVM can turn `old` into this slot without removing it first.
    fn can_follow(&self, old: &Self) -> bool {
        Arc::ptr_eq(&self.region, &old.region) && (self.flags ^ old.flags) & KVM_MEM_READONLY == 0
    }
}

impl VirtualMachine {
    pub(crate) fn new(fd: VmFd) -> Self {
        Self {
            inner: Arc::new(Inner {
                fd,
                slots: Mutex::default(),
            }),
        }
    }

    /// As [`Kvm::check_extension`](crate::Kvm::check_extension), for this machine: some
    /// extensions depend on its type.
    ///
    /// # Errors
    ///
    /// Where `KVM_CHECK_EXTENSION` fails; an unknown number is 0, not an error.
    pub fn check_extension(&self, extension: i32) -> Result<i32, Error> {
        check_extension(extension, |number| {
            self.inner.fd.check_extension_raw(number)
        })
    }

    /// Creates the vCPU of this number. Number them from 0; how many there may be is told by
    /// `KVM_CAP_MAX_VCPUS`.
    ///
    /// # Errors
    ///
    /// Where `KVM_CREATE_VCPU` fails: `EEXIST` for a number in use, `EINVAL` for one too high.
    pub fn create_vcpu(&self, id: u64) -> Result<VirtualCpu, Error> {
        let fd = retry(|| self.inner.fd.create_vcpu(id)).map_err(Error::of("KVM_CREATE_VCPU"))?;
        Ok(VirtualCpu::new(fd, self.clone(), id))
    }

    /// Maps `region` into the guest at `guest_address` (a guest physical address) as memory slot
    /// `slot`, replacing what the slot mapped before. `flags` is a set of `KVM_MEM_` bits.
    ///
    /// The machine owns a share of the region until the slot is removed or replaced, or the
    /// machine is closed. The same region is moved, or has its dirty log switched, in one step.
    /// Another region takes two, for KVM has to remove a slot to exchange its memory: a vCPU that
    /// runs meanwhile may find the address empty.
    ///
    /// # Errors
    ///
    /// [`Error::SlotAddress`] where the address is unaligned or too high,
    /// [`Error::SlotOverlap`] where another slot is in the way, or the kernel's answer. The slot
    /// is then as before.
    pub fn set_guest_memory_region(
        &self,
        slot: u32,
        flags: u32,
        guest_address: u64,
        region: Arc<MemoryRegion>,
    ) -> Result<(), Error> {
        let length = region.length();
        if !guest_address.is_multiple_of(PAGE_SIZE) || guest_address.checked_add(length).is_none() {
            return Err(Error::SlotAddress {
                slot,
                address: guest_address,
                length,
            });
        }
        let new = Slot {
            flags,
            address: guest_address,
            region,
        };
        let mut slots = self.slots();
        let old = slots.get(&slot).cloned();
        if old.as_ref().is_some_and(|old| !new.can_follow(old)) {
            self.remove(slot)?;
            slots.remove(&slot);
        }
        let result = self.add(slot, &new);
        match result {
            Ok(()) => {
                slots.insert(slot, new);
                Ok(())
            }
            Err(source) => {
                if !slots.contains_key(&slot)
                    && let Some(old) = old
                    && self.add(slot, &old).is_ok()
                {
                    slots.insert(slot, old);
                }
                Err(refusal(&slots, slot, &new, source))
            }
        }
    }

    /// Removes memory slot `slot` from the guest, and hands back its region.
    ///
    /// # Errors
    ///
    /// [`Error::SlotUnused`] where there is no such slot, or the kernel's answer.
    pub fn remove_guest_memory_region(&self, slot: u32) -> Result<Arc<MemoryRegion>, Error> {
        let mut slots = self.slots();
        if !slots.contains_key(&slot) {
            return Err(Error::SlotUnused { slot });
        }
        self.remove(slot)?;
        match slots.remove(&slot) {
            Some(removed) => Ok(removed.region),
            None => Err(Error::SlotUnused { slot }),
        }
    }

    /// Tells KVM where a page that it needs for the guest's real mode on Intel may lie: at a guest
    /// physical address that no memory slot covers. Comes before the first vCPU.
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_IDENTITY_MAP_ADDR` fails: `EINVAL` once there is a vCPU.
    pub fn set_identity_map_address(&self, guest_address: u64) -> Result<(), Error> {
        retry(|| self.inner.fd.set_identity_map_address(guest_address))
            .map_err(Error::of("KVM_SET_IDENTITY_MAP_ADDR"))
    }

    /// As [`VirtualMachine::set_identity_map_address`], for three pages of a task state segment,
    /// below 4 GiB.
    ///
    /// # Errors
    ///
    /// Where `KVM_SET_TSS_ADDR` fails.
    pub fn set_tss_address(&self, guest_address: u64) -> Result<(), Error> {
        // What does not fit is too high anyway, and the kernel says so.
        let address = usize::try_from(guest_address).unwrap_or(usize::MAX);
        retry(|| self.inner.fd.set_tss_address(address)).map_err(Error::of("KVM_SET_TSS_ADDR"))
    }

    /// Makes the interrupt controllers inside of KVM. Comes before the first vCPU.
    ///
    /// # Errors
    ///
    /// Where `KVM_CREATE_IRQCHIP` fails: `EEXIST` the second time, `EINVAL` once there is a vCPU.
    pub fn create_irqchip(&self) -> Result<(), Error> {
        retry(|| self.inner.fd.create_irq_chip()).map_err(Error::of("KVM_CREATE_IRQCHIP"))
    }

    /// Lets a write of the 32-bit `value` to `guest_address` (a guest physical address outside of
    /// the memory slots) signal `eventfd` instead of leaving the guest.
    ///
    /// # Errors
    ///
    /// Where `KVM_IOEVENTFD` fails: `EEXIST` for a write that signals already.
    pub fn register_mmio_ioeventfd(
        &self,
        eventfd: &EventFd,
        guest_address: u64,
        value: u32,
    ) -> Result<(), Error> {
        let address = IoEventAddress::Mmio(guest_address);
        retry(|| self.inner.fd.register_ioevent(eventfd, &address, value))
            .map_err(Error::of("KVM_IOEVENTFD"))
    }

    /// Lets `eventfd` raise interrupt `gsi` in the guest, as an edge. Needs the interrupt
    /// controllers.
    ///
    /// # Errors
    ///
    /// Where `KVM_IRQFD` fails: `EBUSY` for an eventfd that raises an interrupt already.
    pub fn register_irqfd(&self, eventfd: &EventFd, gsi: u32) -> Result<(), Error> {
        retry(|| self.inner.fd.register_irqfd(eventfd, gsi)).map_err(Error::of("KVM_IRQFD"))
    }

    /// The handle below. It stays in this crate: a vCPU that is made through it would not keep
    /// the memory of the slots, and run on in it once it is used for something else.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.inner.fd
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Slot>> {
        // Nothing panics while the lock is held, and the table is right after every step anyway.
        self.inner
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, slot: u32, new: &Slot) -> Result<(), Errno> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: new.flags,
            guest_phys_addr: new.address,
            memory_size: new.region.length(),
            userspace_addr: new.region.host_address(),
        };
        // SAFETY: the addresses are a mapping that `new.region` owns; the caller puts it in the
        // table of slots, which keeps it until the slot or the machine is gone.
        retry(|| unsafe { self.inner.fd.set_user_memory_region(region) })
    }

    fn remove(&self, slot: u32) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot,
            ..Default::default()
        };
        // SAFETY: a size of 0 removes the slot and refers to no memory.
        retry(|| unsafe { self.inner.fd.set_user_memory_region(region) })
            .map_err(Error::of("KVM_SET_USER_MEMORY_REGION"))
    }
}

impl AsFd for VirtualMachine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.inner.fd.as_raw_fd()) }
    }
}

/// Names the slot that is in the way where the kernel only says that one is.
fn refusal(slots: &BTreeMap<u32, Slot>, slot: u32, new: &Slot, source: Errno) -> Error {
    let end = |slot: &Slot| slot.address.saturating_add(slot.region.length());
    let in_the_way = slots.iter().find(|&(&number, other)| {
        number != slot && other.address < end(new) && new.address < end(other)
    });
    match in_the_way {
        Some((&other, _)) if source.errno() == libc::EEXIST => Error::SlotOverlap {
            slot,
            address: new.address,
            length: new.region.length(),
            other,
            source,
        },
        _ => Error::of("KVM_SET_USER_MEMORY_REGION")(source),
    }
}
