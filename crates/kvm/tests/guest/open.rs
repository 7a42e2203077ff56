//! Only the KVM device is taken for one.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kvm_bindings::{KVM_CAP_MAX_VCPUS, KVM_CAP_NR_MEMSLOTS};
use microvm_kvm::{DEFAULT_DEVICE, Error, Kvm};

fn closes_on_exec(fd: &impl AsFd) -> bool {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `F_GETFD` takes nothing and touches no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags & libc::FD_CLOEXEC != 0
}

fn device() -> OwnedFd {
    let device = File::options().read(true).write(true).open(DEFAULT_DEVICE);
    device.unwrap().into()
}

pub fn default_device_speaks_version_12_and_closes_on_exec() {
    let kvm = Kvm::open().unwrap();
    assert_eq!(kvm.api_version(), 12);
    assert!(closes_on_exec(&kvm));
    let machine = kvm.create_vm().unwrap();
    assert!(closes_on_exec(&machine));
    assert!(closes_on_exec(&machine.create_vcpu(0).unwrap()));
}

pub fn device_opens_by_path_and_from_a_descriptor() {
    let fd = device();
    // SAFETY: `F_SETFD` takes an integer and touches no memory.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Kvm::open_path(path).unwrap().create_vm().unwrap();
    let kvm = Kvm::from_owned_fd(fd).unwrap();
    assert!(closes_on_exec(&kvm));
    kvm.create_vm().unwrap();
}

pub fn missing_device_names_its_path_and_enoent() {
    let error = Kvm::open_path("/nonexistent/kvm").unwrap_err();
    assert_eq!((error.call(), error.errno()), ("open", libc::ENOENT));
    assert!(error.to_string().contains("/nonexistent/kvm"), "{error}");
}

pub fn path_with_a_nul_is_refused() {
    let error = Kvm::open_path("/dev/kvm\0").unwrap_err();
    assert_eq!((error.call(), error.errno()), ("open", libc::EINVAL));
}

pub fn other_files_are_refused_without_an_ioctl() {
    let (near, _far) = UnixStream::pair().unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let files: [(OwnedFd, &str); 4] = [
        (
            File::open("/proc/self/exe").unwrap().into(),
            "a regular file",
        ),
        (File::open("/").unwrap().into(), "a directory"),
        (near.into(), "a socket"),
        (pipe.into(), "a pipe"),
    ];
    for (fd, kind) in files {
        match Kvm::from_owned_fd(fd).unwrap_err() {
            Error::NotKvm {
                found,
                call: "fstat",
                ..
            } => assert_eq!(found, kind),
            error => panic!("{error}"),
        }
    }
}

pub fn other_character_devices_are_refused_by_their_answer() {
    for path in ["/dev/null", "/dev/zero", "/dev/urandom"] {
        let error = Kvm::open_path(path).unwrap_err();
        assert!(matches!(error, Error::NotKvm { .. }), "{path}: {error}");
        assert_eq!(error.call(), "KVM_GET_API_VERSION");
    }
}

pub fn descriptor_of_a_virtual_machine_is_refused() {
    let machine = Kvm::open().unwrap().create_vm().unwrap();
    let fd = machine.as_fd().try_clone_to_owned().unwrap();
    let error = Kvm::from_owned_fd(fd).unwrap_err();
    assert!(
        matches!(error, Error::NotKvm { call: "fstat", .. }),
        "{error}"
    );
}

pub fn extensions_are_answered_as_integers() {
    let kvm = Kvm::open().unwrap();
    let machine = kvm.create_vm().unwrap();
    for extension in [KVM_CAP_NR_MEMSLOTS, KVM_CAP_MAX_VCPUS] {
        assert!(kvm.check_extension(extension as i32).unwrap() > 1);
        assert!(machine.check_extension(extension as i32).unwrap() > 1);
    }
    for unknown in [i32::MAX, -1, i32::MIN] {
        assert_eq!(kvm.check_extension(unknown), Ok(0));
        assert_eq!(machine.check_extension(unknown), Ok(0));
    }
}

pub fn supported_cpuid_is_asked_once() {
    let kvm = Kvm::open().unwrap();
    let cpuid = kvm.supported_cpuid().unwrap();
    assert!(!cpuid.as_slice().is_empty());
    let again = Kvm::open().unwrap().supported_cpuid().unwrap();
    assert!(std::ptr::eq(cpuid, again));
}

pub fn run_state_size_is_at_least_a_page() {
    let kvm = Kvm::open().unwrap();
    assert!(kvm.vcpu_mmap_size().unwrap() >= 4096);
    assert!(!kvm.msr_index_list().unwrap().as_slice().is_empty());
}
