//! A real guest's kicks: they reach the device past every exit.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use microvm_kvm::{Exit, Kvm, MemoryRegion, VirtualMachine};
use microvm_vmm::devices::rng::Rng;
use microvm_vmm::virtio::{MmioSlot, VirtioDeviceSource, VirtioError, plug};

use crate::support::{Call, Driver, Probe, Ring, memory};

const SLOT: MmioSlot = MmioSlot {
    base: 0xd000_0000,
    gsi: 5,
};

/// A machine with an interrupt controller, or the loud word that there is none.
fn machine() -> Option<VirtualMachine> {
    match Kvm::open() {
        Ok(kvm) => {
            let vm = kvm.create_vm().unwrap();
            vm.create_irqchip().unwrap();
            Some(vm)
        }
        Err(error) => {
            assert!(
                std::env::var_os("MICROVM_TEST_REQUIRE_ALL").is_none_or(|all| all != "1"),
                "{error}"
            );
            let why = format!("NOT RUN: no KVM: {error}\n");
            std::io::stderr().write_all(why.as_bytes()).unwrap();
            None
        }
    }
}

/// Runs 32-bit code on a flat vCPU until it writes to port 0x10, and returns the MMIO writes that
/// left the guest before.
fn run(vm: &VirtualMachine, code: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let region = Arc::new(MemoryRegion::anonymous(0x1000).unwrap());
    region.write(0, code).unwrap();
    vm.set_guest_memory_region(0, 0, 0, region).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.modify_sregs(|registers| {
        registers.cr0 |= 1;
        for segment in [
            &mut registers.cs,
            &mut registers.ds,
            &mut registers.es,
            &mut registers.ss,
        ] {
            segment.base = 0;
            segment.limit = u32::MAX;
            segment.selector = 0x10;
            (segment.g, segment.db, segment.s, segment.present) = (1, 1, 1, 1);
            segment.type_ = 3;
        }
        registers.cs.selector = 8;
        registers.cs.type_ = 11;
    })
    .unwrap();
    vcpu.modify_regs(|registers| {
        registers.rip = 0;
        registers.rflags = 2;
    })
    .unwrap();
    let mut runner = vcpu.into_runner().unwrap();
    let mut writes = Vec::new();
    loop {
        match runner.run().unwrap() {
            Exit::MmioWrite { address, data } => writes.push((address, data.to_vec())),
            Exit::IoOut { port: 0x10, .. } => return writes,
            other => panic!("{other:?}"),
        }
    }
}

/// `mov dword [address], value`
fn store(address: u32, value: u32) -> Vec<u8> {
    [
        &[0xc7, 0x05][..],
        &address.to_le_bytes(),
        &value.to_le_bytes(),
    ]
    .concat()
}

#[test]
fn a_guest_s_kick_reaches_its_queue_without_an_exit() {
    let Some(vm) = machine() else { return };
    let (calls, receiver) = channel();
    let source = VirtioDeviceSource::Hosted(Box::new(Probe::new(calls, &[8, 8])));
    let driver = Driver::of(memory(), source);
    driver.transport.register(&vm, SLOT).unwrap();
    let rings = [0x1000, 0x2000].map(|base| Ring::new(&driver.memory, base, 8, false));
    driver.start(Driver::VERSION_1, &[&rings[0], &rings[1]]);
    let mut greeted = Vec::new();
    while greeted.len() < 2 {
        if let Call::Queue(index) = receiver.recv().unwrap() {
            greeted.push(index);
        }
    }

    let notify = 0xd000_0050;
    let code = [
        store(notify, 1),
        // No such queue: that one exits.
        store(notify, 2),
        vec![0xe6, 0x10],
    ]
    .concat();
    let writes = run(&vm, &code);
    assert_eq!(writes, [(u64::from(notify), vec![2, 0, 0, 0])]);
    let kicked = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(kicked, Call::Queue(1));
}

#[test]
fn two_devices_cannot_have_one_slot() {
    let Some(vm) = machine() else { return };
    let rng = || VirtioDeviceSource::Hosted(Box::new(Rng::new()));
    let first = plug(&vm, memory(), SLOT, rng(), Arc::new(|_| {})).unwrap();
    assert_eq!(first.slot(), SLOT);
    let mut magic = [0; 4];
    first.bus_device().read(0, &mut magic);
    assert_eq!(&magic, b"virt");
    let second = plug(&vm, memory(), SLOT, rng(), Arc::new(|_| {})).err();
    assert!(
        matches!(
            &second,
            Some(VirtioError::Kvm { base: 0xd000_0000, source, .. })
                if source.raw_os_error() == Some(libc::EEXIST)
        ),
        "{second:?}"
    );
}
