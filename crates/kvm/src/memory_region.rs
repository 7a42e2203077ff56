//! Host memory that can be mapped into a guest.
//!
//! The guest may change this memory at any time, so nothing here hands out Rust references to it:
//! bytes are copied in and out, or reached through `vm-memory`'s volatile accessors.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{Bytes, FileOffset, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

use crate::error::{Errno, Error};

/// Size of the pages of ordinary mappings, in bytes, and the unit of KVM's memory slots.
pub const PAGE_SIZE: u64 = 4096;

/// Pages of a memory region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HugePages {
    /// Ordinary pages of 4 KiB.
    #[default]
    Off,
    /// Pages of 2 MiB from the host's hugetlb pool.
    TwoMebibytes,
    /// Pages of 1 GiB from the host's hugetlb pool.
    OneGibibyte,
}

impl HugePages {
    /// Size of one page, in bytes.
    #[must_use]
    pub fn page_size(self) -> u64 {
        match self {
            Self::Off => PAGE_SIZE,
            Self::TwoMebibytes => 2 << 20,
            Self::OneGibibyte => 1 << 30,
        }
    }

    fn memfd_flags(self) -> libc::c_uint {
        match self {
            Self::Off => 0,
            Self::TwoMebibytes => libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
            Self::OneGibibyte => libc::MFD_HUGETLB | libc::MFD_HUGE_1GB,
        }
    }
}

/// A page-aligned mapping of host memory, unmapped when its last owner is gone.
///
/// A virtual machine owns the regions of its slots (see
/// [`VirtualMachine::set_guest_memory_region`](crate::VirtualMachine::set_guest_memory_region)),
/// so a region outlives every slot that refers to it.
#[derive(Debug)]
pub struct MemoryRegion {
    mapping: Mapping,
}

#[derive(Debug)]
enum Mapping {
    /// Anonymous memory, or a file that cannot shrink.
    Own(MmapRegion<()>),
    /// Somebody's file.
    File(MmapRegion<()>),
    Guest(Arc<GuestRegionMmap<()>>),
}

impl MemoryRegion {
    /// Maps `length` bytes of zeroed, shared, anonymous memory.
    ///
    /// # Errors
    ///
    /// Where `length` is not a positive multiple of 4 KiB, or `mmap` fails.
    pub fn anonymous(length: u64) -> Result<Self, Error> {
        let length = checked_length(length, PAGE_SIZE)?;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map(None, length, flags)
    }

    /// Maps `length` bytes of zeroed, shared memory of a memfd, which other processes can map too
    /// (see [`MemoryRegion::file`]). The file can neither shrink nor grow.
    ///
    /// # Errors
    ///
    /// Where `length` is not a positive multiple of the page size, or a call fails; `mmap` with
    /// `ENOMEM` where the host's pool has too few huge pages.
    pub fn memfd(length: u64, huge_pages: HugePages) -> Result<Self, Error> {
        let size = checked_length(length, huge_pages.page_size())?;
        let file = guest_memory_file(c"guest-memory", length, huge_pages)?;
        let mut flags = libc::MAP_SHARED;
        if huge_pages == HugePages::Off {
            flags |= libc::MAP_NORESERVE;
        }
        // Huge pages are reserved: a pool that is too small is an error now, not a bus error at
        // first touch.
        Self::map(Some(FileOffset::new(file, 0)), size, flags)
    }

    /// Maps `length` bytes of a file from `offset` on, shared: what the guest writes reaches the
    /// file, and what others write to the file reaches the guest.
    ///
    /// This process never touches such a mapping itself: [`MemoryRegion::read`] and
    /// [`MemoryRegion::write`] refuse it, for the file may shrink under it, and touching what is
    /// gone kills. Read and write the file instead.
    ///
    /// # Errors
    ///
    /// Where `length` is not a positive multiple of 4 KiB, or `mmap` fails: `EACCES` where the
    /// file is not open for what is asked.
    pub fn shared_file(
        file: File,
        offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<Self, Error> {
        let size = checked_length(length, PAGE_SIZE)?;
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        let file = Some(FileOffset::new(file, offset));
        Self::map_with(file, size, protection, libc::MAP_SHARED)
            .map(Mapping::File)
            .map(|mapping| Self { mapping })
    }

    /// Takes a share in a region of `vm-memory`'s guest memory.
    #[must_use]
    pub fn from_guest_region(region: Arc<GuestRegionMmap<()>>) -> Self {
        Self {
            mapping: Mapping::Guest(region),
        }
    }

    fn map(file: Option<FileOffset>, length: usize, flags: i32) -> Result<Self, Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let region = Self::map_with(file, length, protection, flags)?;
        Ok(Self {
            mapping: Mapping::Own(region),
        })
    }

    fn map_with(
        file: Option<FileOffset>,
        length: usize,
        protection: i32,
        flags: i32,
    ) -> Result<MmapRegion<()>, Error> {
        MmapRegion::build(file, length, protection, flags).map_err(|error| {
            let source = match error {
                MmapRegionError::Mmap(error) => Errno::from(error),
                _ => Errno::new(libc::EINVAL),
            };
            Error::of("mmap")(source)
        })
    }

    /// Makes the kernel forget where the pages of this range are, without losing what they hold:
    /// the next access, of the guest or of this process, looks them up anew. All vCPUs whose slots
    /// map the range drop their translations of it, shadow page tables included. (A store to a
    /// guest page table that the kernel has shadowed is otherwise never noticed.)
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] where the range is not all inside; where it is not made of whole
    /// pages, or the region is of [`MemoryRegion::from_guest_region`], whose memory may be
    /// private and would be lost (`EINVAL`); or where `madvise` fails, as it does for memory that
    /// is locked (`mlockall`) before Linux 5.18 (`EINVAL`).
    pub fn forget_translations(&self, offset: u64, length: u64) -> Result<(), Error> {
        if matches!(self.mapping, Mapping::Guest(_)) {
            return Err(Error::of("madvise")(Errno::new(libc::EINVAL)));
        }
        match self.advise(offset, length, libc::MADV_DONTNEED) {
            // Memory that is locked (`mlockall`) has advice of its own, since Linux 5.18.
            Err(error) if error.errno() == libc::EINVAL => {
                self.advise(offset, length, libc::MADV_DONTNEED_LOCKED)
            }
            result => result,
        }
    }

    /// Allocates the pages of this range now, so that first accesses are quick.
    ///
    /// # Errors
    ///
    /// As [`MemoryRegion::forget_translations`]; `EFAULT` where a file ends before the range.
    pub fn populate(&self, offset: u64, length: u64) -> Result<(), Error> {
        let advice = match &self.mapping {
            Mapping::File(region) if region.prot() & libc::PROT_WRITE == 0 => {
                libc::MADV_POPULATE_READ
            }
            _ => libc::MADV_POPULATE_WRITE,
        };
        self.advise(offset, length, advice)
    }

    fn advise(&self, offset: u64, length: u64, advice: libc::c_int) -> Result<(), Error> {
        let outside = || Error::OutOfBounds {
            offset,
            length,
            region: self.length(),
        };
        let end = offset.checked_add(length).ok_or_else(outside)?;
        if end > self.length() {
            return Err(outside());
        }
        if !offset.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(Error::of("madvise")(Errno::new(libc::EINVAL)));
        }
        let (Ok(offset), Ok(length)) = (usize::try_from(offset), usize::try_from(length)) else {
            return Err(outside());
        };
        let start = self.region().as_ptr().wrapping_add(offset);
        // SAFETY: the range is inside the mapping, which `self` owns; it is shared, so that none
        // of these kinds of advice changes what it holds.
        if unsafe { libc::madvise(start.cast(), length, advice) } < 0 {
            return Err(Error::of("madvise")(Errno::last()));
        }
        Ok(())
    }

    /// Whether this process may touch the mapping itself.
    fn accessible(&self) -> Result<(), Error> {
        match self.mapping {
            Mapping::File(_) => Err(Error::of("copy")(Errno::new(libc::EACCES))),
            Mapping::Own(_) | Mapping::Guest(_) => Ok(()),
        }
    }

    /// Bytes of the region.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.region().size() as u64
    }

    /// Address of the region in this process.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.region().as_ptr() as u64
    }

    /// The file behind the region, if it has one.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.region().file_offset().map(FileOffset::file)
    }

    /// The whole region for volatile access in place; of a file only where nobody can shrink it.
    #[must_use]
    pub fn as_volatile_slice(&self) -> VolatileSlice<'_> {
        self.region().as_volatile_slice()
    }

    /// Copies `buffer.len()` bytes out, from `offset` (bytes from the region's start).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] where they are not all inside; nothing is copied then. `EACCES` for
    /// a region of [`MemoryRegion::shared_file`].
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.accessible()?;
        self.slice(offset, buffer.len())?.copy_to(buffer);
        Ok(())
    }

    /// Copies `bytes` in, to `offset` (bytes from the region's start).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] where they do not all fit; nothing is copied then. `EACCES` for a
    /// region of [`MemoryRegion::shared_file`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.accessible()?;
        let outside = self.out_of_bounds(offset, bytes.len());
        self.slice(offset, bytes.len())?
            .write_slice(bytes, 0)
            .map_err(|_| outside)
    }

    /// Makes `length` bytes zeros, from `offset` (bytes from the region's start) on.
    ///
    /// # Errors
    ///
    /// As for [`MemoryRegion::write`].
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.accessible()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let slice = self.slice(offset, length)?;
        let guard = slice.ptr_guard_mut();
        // SAFETY: the slice is inside the mapping, which `self` owns and may touch. A guest that
        // writes there meanwhile sees its own bytes or zeros: nobody here has a reference to them.
        unsafe { guard.as_ptr().write_bytes(0, length) };
        Ok(())
    }

    fn slice(&self, offset: u64, length: usize) -> Result<VolatileSlice<'_>, Error> {
        usize::try_from(offset)
            .ok()
            .and_then(|start| self.region().get_slice(start, length).ok())
            .ok_or_else(|| self.out_of_bounds(offset, length))
    }

    fn out_of_bounds(&self, offset: u64, length: usize) -> Error {
        Error::OutOfBounds {
            offset,
            length: length as u64,
            region: self.length(),
        }
    }

    fn region(&self) -> &MmapRegion<()> {
        match &self.mapping {
            Mapping::Own(region) | Mapping::File(region) => region,
            Mapping::Guest(region) => region,
        }
    }
}

fn checked_length(length: u64, page_size: u64) -> Result<usize, Error> {
    let refused = Error::RegionLength { length, page_size };
    if length == 0 || !length.is_multiple_of(page_size) {
        return Err(refused);
    }
    // No mapping is longer than half of the address space; this also keeps `length` within the
    // range of a file's length.
    match isize::try_from(length) {
        Ok(length) => Ok(length.unsigned_abs()),
        Err(_) => Err(Error::of("mmap")(Errno::new(libc::ENOMEM))),
    }
}

/// A memfd for guest memory: `length` bytes of zeros, of which nobody can take any away. `name` is
/// for `/proc`.
///
/// # Errors
///
/// Where `memfd_create`, `ftruncate` or `fcntl` fails.
pub fn guest_memory_file(name: &CStr, length: u64, huge_pages: HugePages) -> Result<File, Error> {
    let file = memfd(name, huge_pages)?;
    file.set_len(length).map_err(|error| Error::Call {
        call: "ftruncate",
        source: Errno::from(error),
    })?;
    // Whoever gets the descriptor could otherwise truncate the file, and touching the mapping
    // beyond its end kills this process.
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: `F_ADD_SEALS` takes an integer and touches no memory; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result < 0 {
        return Err(Error::of("fcntl")(Errno::last()));
    }
    Ok(file)
}

fn memfd(name: &CStr, huge_pages: HugePages) -> Result<File, Error> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge_pages.memfd_flags();
    // A host may refuse files that could be executed (sysctl vm.memfd_noexec); kernels before 6.3
    // do not know the flag.
    let mut raw = create(name, flags | libc::MFD_NOEXEC_SEAL);
    if matches!(&raw, Err(error) if error.errno() == libc::EINVAL) {
        raw = create(name, flags);
    }
    let raw = raw.map_err(Error::of("memfd_create"))?;
    // SAFETY: the call above made this descriptor and handed it to nobody else.
    Ok(unsafe { File::from_raw_fd(raw) })
}

fn create(name: &CStr, flags: libc::c_uint) -> Result<RawFd, Errno> {
    // SAFETY: the name ends with its NUL and lives until the call returns.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if raw < 0 { Err(Errno::last()) } else { Ok(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn translations_of_locked_memory_are_forgotten_and_its_bytes_are_not() {
        let region = MemoryRegion::memfd(2 * PAGE_SIZE, HugePages::Off).unwrap();
        region.write(0, &[7]).unwrap();
        let start = region.region().as_ptr().cast();
        // SAFETY: locks a page of the mapping, which is unlocked when it goes.
        let locked = unsafe { libc::mlock(start, 4096) };
        assert_eq!(locked, 0);
        let plain = region.advise(0, PAGE_SIZE, libc::MADV_DONTNEED);
        assert_eq!(plain.unwrap_err().errno(), libc::EINVAL);
        assert_eq!(region.forget_translations(0, PAGE_SIZE), Ok(()));
        let mut byte = [0];
        region.read(0, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn bytes_written_are_read_back_up_to_the_last_one() {
        for region in [
            MemoryRegion::anonymous(8192).unwrap(),
            MemoryRegion::memfd(8192, HugePages::Off).unwrap(),
        ] {
            region.write(8190, &[1, 2]).unwrap();
            let mut buffer = [9; 3];
            region.read(8189, &mut buffer).unwrap();
            assert_eq!(buffer, [0, 1, 2]);
            region.zero(8191, 1).unwrap();
            region.read(8189, &mut buffer).unwrap();
            assert_eq!(buffer, [0, 1, 0]);
        }
    }

    #[test]
    fn access_outside_is_refused_and_copies_nothing() {
        let region = MemoryRegion::anonymous(4096).unwrap();
        for (offset, length) in [(4095, 2), (4097, 0), (u64::MAX, 1), (u64::MAX - 3, 8)] {
            let mut buffer = vec![7; length];
            let error = region.read(offset, &mut buffer).unwrap_err();
            assert!(matches!(error, Error::OutOfBounds { .. }), "{error}");
            assert_eq!(buffer, vec![7; length]);
            assert!(region.write(offset, &buffer).is_err());
            assert!(region.zero(offset, length as u64).is_err());
        }
        let mut all = [1; 4096];
        region.read(0, &mut all).unwrap();
        assert_eq!(all, [0; 4096]);
    }

    #[test]
    fn empty_access_at_either_end_is_allowed() {
        let region = MemoryRegion::anonymous(4096).unwrap();
        region.read(0, &mut []).unwrap();
        region.write(4096, &[]).unwrap();
    }

    #[test]
    fn zero_and_unaligned_lengths_are_refused() {
        for length in [0, 1, 4095, 4097, u64::MAX] {
            let error = MemoryRegion::anonymous(length).unwrap_err();
            assert!(matches!(error, Error::RegionLength { .. }), "{error}");
        }
        let error = MemoryRegion::memfd(4096, HugePages::TwoMebibytes).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
    }

    #[test]
    fn absurd_length_is_out_of_memory() {
        for length in [1 << 62, 1 << 63] {
            let error = MemoryRegion::anonymous(length).unwrap_err();
            assert_eq!((error.call(), error.errno()), ("mmap", libc::ENOMEM));
        }
    }

    #[test]
    fn file_of_a_memfd_region_is_sealed_and_shares_the_memory() {
        use std::os::unix::fs::{FileExt, PermissionsExt};
        let knows_noexec = || std::fs::exists("/proc/sys/vm/memfd_noexec").unwrap();
        let region = MemoryRegion::memfd(4096, HugePages::Off).unwrap();
        let file = region.file().unwrap();
        assert!(file.set_len(0).is_err());
        let executable = PermissionsExt::from_mode(0o700);
        assert!(file.set_permissions(executable).is_err() || !knows_noexec());
        file.write_at(b"shared", 10).unwrap();
        let mut buffer = [0; 6];
        region.read(10, &mut buffer).unwrap();
        assert_eq!(&buffer, b"shared");
    }

    #[test]
    fn region_of_a_file_is_not_touched_by_this_process() {
        let file = memfd(c"file", HugePages::Off).unwrap();
        file.set_len(4096).unwrap();
        let region = MemoryRegion::shared_file(file.try_clone().unwrap(), 0, 8192, true).unwrap();
        let error = region.read(0, &mut [0]).unwrap_err();
        assert_eq!((error.call(), error.errno()), ("copy", libc::EACCES));
        assert!(region.write(0, &[0]).is_err());
        region.populate(0, 4096).unwrap();
        assert_eq!(region.populate(0, 8192).unwrap_err().errno(), libc::EFAULT);
        drop(file);
    }

    #[test]
    fn forgotten_translations_lose_no_contents() {
        let region = MemoryRegion::anonymous(8192).unwrap();
        region.write(4095, &[1, 2]).unwrap();
        region.forget_translations(0, 8192).unwrap();
        let mut buffer = [0; 2];
        region.read(4095, &mut buffer).unwrap();
        assert_eq!(buffer, [1, 2]);
        for (offset, length) in [(1, 4096), (0, 5)] {
            let error = region.forget_translations(offset, length).unwrap_err();
            assert_eq!(error.errno(), libc::EINVAL);
        }
        assert!(region.forget_translations(4096, 8192).is_err());
        assert!(region.forget_translations(4096, u64::MAX).is_err());
    }

    #[test]
    fn guest_region_is_shared_not_copied() {
        let guest = GuestRegionMmap::from_range(GuestAddress(0x1000), 4096, None).unwrap();
        let guest = Arc::new(guest);
        let region = MemoryRegion::from_guest_region(Arc::clone(&guest));
        region.write(5, b"x").unwrap();
        assert_eq!(region.host_address(), guest.as_ptr() as u64);
        assert_eq!(Arc::strong_count(&guest), 2);
        drop(region);
        assert_eq!(Arc::strong_count(&guest), 1);
    }
}
