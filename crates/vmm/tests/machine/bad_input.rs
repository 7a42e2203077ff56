//! What a machine refuses. Nothing here needs KVM but to be told so.

use std::path::PathBuf;

use microvm_vmm::boot::{BootError, Image};
use microvm_vmm::{ConfigError, Machine, MachineError};

use super::guest::{Code, Elf};
use super::support::{alone, config, has_kvm};

#[track_caller]
fn refused(change: impl FnOnce(&mut microvm_vmm::MachineConfig)) -> MachineError {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&Code::new().spin().write(&folder));
    change(&mut config);
    Machine::new(config).unwrap_err()
}

#[test]
fn the_configuration_is_checked_before_anything_is_opened() {
    let _alone = alone();
    // No such device: whoever opened it first would fail by that.
    let nowhere = || Some(PathBuf::from("/nonexistent/kvm"));
    let error = refused(|c| {
        c.cpus = 0;
        c.kvm_device = nowhere();
    });
    assert!(matches!(
        error,
        MachineError::Config(ConfigError::Cpus { .. })
    ));
    let error = refused(|c| {
        c.command_line = "\0".into();
        c.kvm_device = nowhere();
    });
    assert!(matches!(
        error,
        MachineError::Config(ConfigError::CommandLineNul { offset: 0 })
    ));
}

#[test]
fn a_kvm_device_that_is_missing_or_is_none_is_named() {
    let _alone = alone();
    let error = refused(|c| c.kvm_device = Some("/nonexistent/kvm".into()));
    assert!(matches!(
        error,
        MachineError::Kvm(microvm_kvm::Error::Open { .. })
    ));
    let error = refused(|c| c.kvm_device = Some("/dev/zero".into()));
    assert!(matches!(
        error,
        MachineError::Kvm(microvm_kvm::Error::NotKvm { .. })
    ));
}

#[test]
fn more_memory_than_the_cpu_can_address_is_refused() {
    let _alone = alone();
    if !has_kvm() {
        return;
    }
    let result = {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&Code::new().spin().write(&folder));
        config.memory_bytes = 1 << 40;
        Machine::new(config)
    };
    // Hosts differ: too wide for the addresses, or for what can be mapped, or just fine.
    if let Err(error) = result {
        assert!(matches!(
            error,
            MachineError::Config(ConfigError::MemorySize { .. })
                | MachineError::Memory(_)
                | MachineError::Kvm(_)
        ));
    }
}

#[test]
fn kernels_and_initramfs_that_cannot_be_used_say_why() {
    let _alone = alone();
    if !has_kvm() {
        return;
    }
    let boot = |error| match error {
        MachineError::Boot(error) => error,
        other => panic!("{other:?}"),
    };
    let error = boot(refused(|c| c.kernel = "/nonexistent".into()));
    assert!(matches!(
        error,
        BootError::Missing {
            image: Image::Kernel,
            ..
        }
    ));
    let error = boot(refused(|c| c.initramfs = Some("/nonexistent".into())));
    assert!(matches!(
        error,
        BootError::Missing {
            image: Image::Initramfs,
            ..
        }
    ));

    let folder = tempfile::tempdir().unwrap();
    let arm = folder.path().join("arm");
    let mut elf = Elf::new(vec![0; 64]);
    elf.machine = 183;
    std::fs::write(&arm, elf.build()).unwrap();
    let error = boot(refused(|c| c.kernel = arm));
    assert!(matches!(
        error,
        BootError::OtherArchitecture {
            architecture: "arm64",
            ..
        }
    ));

    let large = folder.path().join("initramfs");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let error = boot(refused(|c| c.initramfs = Some(large)));
    assert!(matches!(error, BootError::InitramfsTooLarge { .. }));
}
