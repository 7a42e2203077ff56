use super::*;

fn config() -> MachineConfig {
    MachineConfig {
        cpus: 1,
        memory_bytes: 128 << 20,
        huge_pages: false,
        kernel: "vmlinux".into(),
        initramfs: None,
        command_line: String::new(),
        vsock: None,
        rng: false,
        vhost_user: Vec::new(),
        console: None,
        kvm_device: None,
    }
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut MachineConfig), want: &ConfigError) {
    let mut config = config();
    change(&mut config);
    assert_eq!(config.validate().as_ref(), Err(want));
}

fn peer(queues: u16, queue_size: u16) -> VhostUserConfig {
    VhostUserConfig {
        peer: VhostUserPeer::Socket("peer".into()),
        device_type: 26,
        queues,
        queue_size,
    }
}

#[test]
fn a_sound_configuration_passes() {
    assert_eq!(config().validate(), Ok(()));
}

#[test]
fn vcpus_are_one_to_sixty_four() {
    for cpus in [0, 65, 255] {
        refuses(|c| c.cpus = cpus, &ConfigError::Cpus { cpus, max: 64 });
    }
}

#[test]
fn memory_is_bounded_and_in_whole_pages() {
    for bytes in [0, 4096, MEMORY_MIN - 4096, MEMORY_MAX + 4096, u64::MAX] {
        let want = ConfigError::MemorySize {
            bytes,
            min: MEMORY_MIN,
            max: MEMORY_MAX,
        };
        refuses(|c| c.memory_bytes = bytes, &want);
    }
    let bytes = (128 << 20) + 1;
    refuses(
        |c| c.memory_bytes = bytes,
        &ConfigError::MemoryAlignment { bytes, page: 4096 },
    );
    let bytes = (128 << 20) + 4096;
    refuses(
        |c| {
            c.memory_bytes = bytes;
            c.huge_pages = true;
        },
        &ConfigError::MemoryAlignment {
            bytes,
            page: HUGE_PAGE,
        },
    );
}

#[test]
fn the_command_line_fits_the_kernel_and_holds_no_nul() {
    refuses(
        |c| c.command_line = "x".repeat(2048),
        &ConfigError::CommandLineLength {
            length: 2048,
            max: 2047,
        },
    );
    refuses(
        |c| c.command_line = "quiet\0init=/bin/sh".into(),
        &ConfigError::CommandLineNul { offset: 5 },
    );
    let mut config = config();
    config.command_line = "x".repeat(2047);
    assert_eq!(config.validate(), Ok(()));
}

#[test]
fn reserved_context_ids_are_refused() {
    for guest_cid in [0, 1, 2, 0xffff_ffff, u64::MAX] {
        refuses(
            |c| {
                c.vsock = Some(VsockConfig {
                    guest_cid,
                    host_end: VsockHostEnd::Unix("s".into()),
                });
            },
            &ConfigError::GuestCid { guest_cid },
        );
    }
}

#[test]
fn devices_need_an_interrupt_line_and_queues() {
    refuses(
        |c| {
            c.rng = true;
            c.vhost_user = (0..18).map(|_| peer(1, 128)).collect();
        },
        &ConfigError::Devices { count: 19, max: 18 },
    );
    for (queues, queue_size) in [(0, 128), (1, 0), (1, 3), (1, 65535)] {
        refuses(
            |c| c.vhost_user = vec![peer(1, 1024), peer(queues, queue_size)],
            &ConfigError::VhostUserQueues {
                index: 1,
                queues,
                queue_size,
            },
        );
    }
}
