//! Any accesses to the registers of a virtio-mmio device, over any memory.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use microvm_vmm::bus::BusDevice;
use microvm_vmm::devices::rng::Rng;
use microvm_vmm::memory::{PageSize, Ram};
use microvm_vmm::virtio::{MmioTransport, Transport, VirtioDeviceSource};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

#[derive(Debug, Arbitrary)]
enum Access {
    Read {
        offset: u16,
        length: u8,
    },
    Write {
        offset: u16,
        data: Vec<u8>,
    },
    /// A register as drivers write it; most of what any bytes would make is refused for its form.
    Register {
        index: u8,
        value: u32,
    },
    /// What a driver writes into its memory.
    Memory {
        page: u8,
        data: Vec<u8>,
    },
    Pause,
    Resume,
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Whether a driver has come as far as `FEATURES_OK` already.
    negotiated: bool,
    accesses: Vec<Access>,
}

static MEMORY: LazyLock<Arc<GuestMemoryMmap>> = LazyLock::new(|| {
    let ram = Ram::new(1 << 20, PageSize::Base).expect("memory");
    Arc::clone(ram.memory())
});

fuzz_target!(|input: Input| {
    let transport = MmioTransport::new(
        Arc::clone(&MEMORY),
        VirtioDeviceSource::Hosted(Box::new(Rng::new())),
        Arc::new(|_| {}),
    )
    .expect("a transport");
    let write = |offset: u64, value: u32| transport.write(offset, &value.to_le_bytes());
    if input.negotiated {
        for (offset, value) in [(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
            write(offset, value);
        }
    }
    for access in &input.accesses {
        match access {
            Access::Read { offset, length } => {
                transport.read((*offset).into(), &mut vec![0; usize::from(length % 16)]);
            }
            Access::Write { offset, data } => transport.write((*offset).into(), data),
            Access::Register { index, value } => write(u64::from(index % 0x40) * 4, *value),
            Access::Memory { page, data } => {
                let _ = MEMORY.write(data, GuestAddress(u64::from(*page) << 12));
            }
            Access::Pause => transport.pause().expect("a pause"),
            Access::Resume => transport.resume().expect("a resume"),
        }
    }
    transport.stop();
});
