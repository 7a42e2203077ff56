//! The vhost-user host against front ends that leave, stay away, or send nonsense.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;

use microvm_vsock::{HostEnd, VhostUserHost, VsockConfig, VsockDevice, VsockError};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;
use vhost::vhost_user::Frontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Tests that count what the process holds open must not run beside others.
static ALONE: Mutex<()> = Mutex::new(());

struct Rig {
    folder: TempDir,
    host: VhostUserHost,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = VhostUserHost::serve(device(&folder), &folder.path().join("peer")).unwrap();
        Self { folder, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("peer")).unwrap()
    }

    fn assert_gone(&self) {
        assert!(!self.path("peer").exists());
        assert!(!self.path("vsock").exists());
    }
}

fn device(folder: &TempDir) -> VsockDevice {
    VsockDevice::new(VsockConfig {
        guest_cid: 3,
        socket: folder.path().join("vsock"),
    })
    .unwrap()
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|error| error.into_inner())
}

#[test]
fn a_host_that_nobody_came_to_stops() {
    let _alone = alone();
    let rig = Rig::new();
    let mode = std::fs::metadata(rig.path("peer")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(rig.host.stop(), HostEnd::Stopped);
    assert_eq!(rig.host.stop(), HostEnd::Stopped);
    rig.assert_gone();
}

#[test]
fn a_host_with_a_front_end_stops_and_the_front_end_sees_it() {
    let _alone = alone();
    let rig = Rig::new();
    let mut stream = rig.connect();
    assert_eq!(features(&mut stream) & 1 << 32, 1 << 32);
    assert_eq!(rig.host.stop(), HostEnd::Stopped);
    assert_eq!(stream.read(&mut [0; 12]).unwrap(), 0);
    rig.assert_gone();
}

#[test]
fn memory_that_its_owner_could_shorten_ends_the_host() {
    let _alone = alone();
    let rig = Rig::new();
    let front_end = Frontend::from_stream(rig.connect(), 3);
    front_end.set_owner().unwrap();
    front_end.get_features().unwrap();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = File::from(memfd_create("guest", flags).unwrap());
    memory.set_len(1 << 20).unwrap();
    // It is not acknowledged: what follows, if anything, is the end of the connection.
    let _ = front_end.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: 1 << 20,
        userspace_addr: 0,
        mmap_offset: 0,
        mmap_handle: memory.as_raw_fd(),
    }]);
    let end = rig.host.wait();
    assert!(
        matches!(&end, HostEnd::Failed(reason) if reason.contains("not sealed")),
        "{end:?}"
    );
    rig.assert_gone();
}

#[test]
fn a_front_end_that_leaves_ends_the_host() {
    let _alone = alone();
    let rig = Rig::new();
    let mut stream = rig.connect();
    features(&mut stream);
    drop(stream);
    assert_eq!(rig.host.wait(), HostEnd::FrontEndGone);
    rig.assert_gone();
    assert_eq!(rig.host.stop(), HostEnd::FrontEndGone);
}

#[test]
fn a_front_end_that_leaves_within_a_message_ends_the_host() {
    let _alone = alone();
    for cut in [1, 4, 11] {
        let rig = Rig::new();
        let mut stream = rig.connect();
        stream.write_all(&message(1, 1, &[])[..cut]).unwrap();
        drop(stream);
        assert_eq!(rig.host.wait(), HostEnd::FrontEndGone);
        rig.assert_gone();
    }
}

#[test]
fn a_second_front_end_is_refused() {
    let _alone = alone();
    let rig = Rig::new();
    let mut stream = rig.connect();
    features(&mut stream);
    UnixStream::connect(rig.path("peer")).unwrap_err();
}

#[test]
fn a_listener_of_the_caller_is_served_too() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine");
    let listener = UnixListener::bind(&path).unwrap();
    let host = VhostUserHost::serve_listener(device(&folder), listener).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    features(&mut stream);
    drop(stream);
    assert_eq!(host.wait(), HostEnd::FrontEndGone);
    assert!(path.exists());
}

#[test]
fn a_path_in_use_is_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let first = device(&folder);
    let config = VsockConfig {
        guest_cid: 3,
        socket: folder.path().join("vsock"),
    };
    let error = VsockDevice::new(config).unwrap_err();
    assert!(matches!(error, VsockError::Listen { .. }), "{error}");
    let path = folder.path().join("vsock");
    let error = VhostUserHost::serve(first, &path).unwrap_err();
    assert!(matches!(error, VsockError::Listen { .. }), "{error}");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for guest_cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let socket = folder.path().join("vsock");
        let error = VsockDevice::new(VsockConfig { guest_cid, socket }).unwrap_err();
        assert!(matches!(error, VsockError::GuestCid(cid) if cid == guest_cid));
    }
    let socket = folder.path().join("x".repeat(100));
    let error = VsockDevice::new(VsockConfig {
        guest_cid: 3,
        socket,
    })
    .unwrap_err();
    assert!(matches!(error, VsockError::PathTooLong { limit: 96, .. }));
}

#[test]
fn hosts_leave_no_descriptor_and_no_thread_behind() {
    let _alone = alone();
    let count = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (descriptors, microvm_test_support::threads())
    };
    let round = |with_front_end: bool| {
        let rig = Rig::new();
        if with_front_end {
            let mut stream = rig.connect();
            features(&mut stream);
            drop(stream);
            rig.host.wait();
        }
        rig.host.stop();
    };
    round(true);
    let before = count();
    for index in 0..50 {
        round(index % 2 == 0);
    }
    assert_eq!(count(), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_never_outlives_its_sender(messages in prop::collection::vec(any_message(), 1..12)) {
        let _alone = alone();
        let rig = Rig::new();
        let stream = rig.connect();
        stream.set_nonblocking(true).unwrap();
        let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(1 << 20).unwrap();
        let event = EventFd::new(0).unwrap();
        for (bytes, fds) in &messages {
            let all = [memory.as_raw_fd(), event.as_raw_fd(), memory.as_raw_fd()];
            // The host may have left in disgust already.
            let _ = stream.send_with_fds(&[&bytes[..]], &all[..*fds]);
        }
        drop(stream);
        let end = rig.host.wait();
        prop_assert!(end != HostEnd::Stopped);
        if let HostEnd::Failed(reason) = end {
            prop_assert!(!reason.contains("panicked") && !reason.contains("wait for daemon"), "{}", reason);
        }
        rig.assert_gone();
    }
}

/// Messages that get past the first check often enough: known codes, plausible sizes.
fn any_message() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let word = prop_oneof![
        4 => 0u64..4,
        2 => Just(0x1000u64),
        2 => Just(1u64 << 20),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
        // Features that the host offers: what follows them gets further.
        2 => Just(1u64 << 32 | 1 << 30 | 1 << 29),
        2 => Just(0x208u64 | 1),
    ];
    let body = prop::collection::vec(word, 0..9);
    let flags = prop_oneof![8 => Just(1u32), 2 => Just(9u32), 1 => any::<u32>()];
    let size = prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)];
    (1u32..45, flags, body, size, 0usize..4).prop_map(|(code, flags, words, size, fds)| {
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // Vring messages carry two 32-bit numbers.
        if matches!(code, 8 | 10 | 11 | 18) && body.len() >= 8 {
            body.truncate(8);
        }
        let mut bytes = message(code, flags, &body);
        if let Some(size) = size {
            bytes[8..12].copy_from_slice(&size.to_le_bytes());
        }
        (bytes, fds)
    })
}

fn message(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(code.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Asks for the features, by hand.
fn features(stream: &mut UnixStream) -> u64 {
    stream.write_all(&message(1, 1, &[])).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    u64::from_le_bytes(answer[12..].try_into().unwrap())
}
