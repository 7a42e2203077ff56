//! The kernel's device in all orders of a driver's doing, against a kernel that is made up.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use microvm_virtio::DeviceMeter;
use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::KernelDevice;
use super::*;
use crate::memory::{PageSize, Ram};
use crate::virtio::test_line::Line;
use crate::virtio::transport::Interrupt;

/// What was asked of the kernel, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Owner,
    Features(u64),
    Memory,
    Ring { index: usize, position: u16 },
    Position(usize),
    Running(bool),
}

/// A kernel that keeps vhost's own rules: an owner before all else, no change of rings that it
/// works on.
#[derive(Debug, Clone, Default)]
struct Kernel(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    asked: Vec<Asked>,
    owned: bool,
    running: bool,
    /// The operation that is refused.
    refuse: Option<&'static str>,
    features: u64,
}

const ALL_FEATURES: u64 = 1 << 32 | 1 << 33 | 1 << 26 | 1 << 24 | 1 << 29 | 1 << 28 | 1 << 1;

impl Kernel {
    fn new() -> Self {
        let kernel = Self::default();
        kernel.0.lock().unwrap().features = ALL_FEATURES;
        kernel
    }

    fn ask(&self, operation: &'static str, asked: Asked) -> Result<(), VirtioError> {
        let mut state = self.0.lock().unwrap();
        let error = |code| VirtioError::KernelDevice {
            operation,
            source: io::Error::from_raw_os_error(code),
        };
        if asked == Asked::Owner {
            state.owned = true;
        }
        assert!(state.owned, "{asked:?} without an owner");
        if state.refuse == Some(operation) {
            return Err(error(libc::EFAULT));
        }
        if state.running && matches!(asked, Asked::Ring { .. }) {
            return Err(error(libc::EBUSY));
        }
        if let Asked::Running(running) = asked {
            state.running = running;
        }
        state.asked.push(asked);
        Ok(())
    }

    fn refuse(&self, operation: &'static str) {
        self.0.lock().unwrap().refuse = Some(operation);
    }

    fn running(&self) -> bool {
        self.0.lock().unwrap().running
    }

    fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl KernelDevice for Kernel {
    fn take_owner(&self) -> Result<(), VirtioError> {
        self.ask("owner", Asked::Owner)
    }

    fn features(&self) -> Result<u64, VirtioError> {
        Ok(self.0.lock().unwrap().features)
    }

    fn set_features(&self, features: u64) -> Result<(), VirtioError> {
        self.ask("features", Asked::Features(features))
    }

    fn set_memory(&self, _: &GuestMemoryMmap) -> Result<(), VirtioError> {
        self.ask("memory", Asked::Memory)
    }

    fn set_ring(
        &self,
        index: usize,
        queue: &QueueState,
        _: &EventFd,
        _: &EventFd,
    ) -> Result<(), VirtioError> {
        let position = queue.position.next_avail;
        self.ask("ring", Asked::Ring { index, position })
    }

    fn ring_position(&self, index: usize) -> Result<u32, VirtioError> {
        self.ask("position", Asked::Position(index))?;
        Ok(7 + u32::try_from(index).unwrap())
    }

    fn set_running(&self, running: bool) -> Result<(), VirtioError> {
        self.ask(
            if running { "start" } else { "stop" },
            Asked::Running(running),
        )
    }
}

struct Bench {
    kernel: Kernel,
    host: VhostKernelHost<Kernel>,
    line: Arc<Line>,
    kicks: Arc<[EventFd]>,
    events: Receiver<DeviceEvent>,
}

fn bench() -> Bench {
    let ram = Ram::new(1 << 20, PageSize::Base).unwrap();
    let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap();
    let line = Arc::new(Line {
        descriptor: event(),
        failures: Mutex::default(),
    });
    let kicks: Arc<[EventFd]> = [event(), event(), event()].into();
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let kernel = Kernel::new();
    let context = HostContext {
        memory: Arc::clone(ram.memory()),
        kicks: Arc::clone(&kicks),
        interrupt: Arc::clone(&line) as Arc<dyn Interrupt>,
        meter: Arc::new(DeviceMeter::new(0)),
        events: Arc::new(move |event| {
            let _ = sender.lock().unwrap().send(event);
        }),
    };
    // The used rings' indices, as a kernel would have written them.
    context
        .memory
        .write_obj(5u16.to_le(), GuestAddress(0x2002))
        .unwrap();
    let host = VhostKernelHost::new(kernel.clone(), 77, context).unwrap();
    Bench {
        kernel,
        host,
        line,
        kicks,
        events,
    }
}

fn queues(ready: [bool; 3]) -> Vec<QueueState> {
    ready
        .iter()
        .map(|&ready| QueueState {
            max_size: QUEUE_SIZE,
            size: 64,
            ready,
            descriptor_table: 0x1000,
            avail_ring: 0x1800,
            used_ring: 0x2000,
            position: RingPosition::default(),
        })
        .collect()
}

fn activate(host: &mut VhostKernelHost<Kernel>, ready: [bool; 3]) -> Result<(), VirtioError> {
    let queues = queues(ready);
    host.activate(&Activation {
        features: 1 << VIRTIO_F_VERSION_1,
        queues: &queues,
    })
}

const ALL: [bool; 3] = [true; 3];

fn ring(index: usize, position: u16) -> Asked {
    Asked::Ring { index, position }
}

#[test]
fn a_driver_is_offered_what_it_may_use() {
    let Bench { host, .. } = bench();
    assert_eq!(host.features(), 1 << 32 | 1 << 29 | 1 << 28 | 1 << 1);
    assert_eq!(host.queue_sizes(), [256; 3]);
    assert_eq!(host.device_type(), 19);
}

#[test]
fn the_configuration_space_is_the_context_id_and_then_zeros() {
    let Bench { host, .. } = bench();
    let mut all = [0xff; 12];
    host.read_config(0, &mut all);
    assert_eq!(all, [77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for offset in [1, 8, 9, u32::MAX] {
        let mut byte = [0xff; 1];
        host.read_config(offset, &mut byte);
        assert_eq!(byte, [0], "{offset}");
    }
}

#[test]
fn a_kernel_without_virtio_1_is_refused() {
    let ram = Ram::new(1 << 20, PageSize::Base).unwrap();
    let context = HostContext {
        memory: Arc::clone(ram.memory()),
        ..bench().host.context
    };
    let legacy = VhostKernelHost::new(Kernel::default(), 3, context);
    assert!(matches!(legacy, Err(VirtioError::LegacyKernelDevice)));
}

#[test]
fn both_rings_are_told_before_the_kernel_starts_and_kicked_after() {
    let mut bench = bench();
    activate(&mut bench.host, ALL).unwrap();
    let asked = bench.kernel.take_asked();
    assert_eq!(
        asked,
        [
            Asked::Owner,
            Asked::Features(1 << 32),
            Asked::Memory,
            ring(0, 0),
            ring(1, 0),
            Asked::Running(true)
        ]
    );
    let kicked: Vec<_> = bench.kicks.iter().map(|kick| kick.read().ok()).collect();
    assert_eq!(kicked, [Some(1), Some(1), None]);
}

#[test]
fn a_driver_may_do_without_the_event_queue_but_not_without_another() {
    let mut bench = bench();
    for (ready, missing) in [([false, true, true], 0), ([true, false, true], 1)] {
        let error = activate(&mut bench.host, ready).unwrap_err();
        assert!(matches!(error, VirtioError::Ring { queue, .. } if queue == missing));
        assert!(!bench.kernel.running());
        bench.host.reset();
    }
    activate(&mut bench.host, [true, true, false]).unwrap();
    assert!(bench.kernel.running());
}

#[test]
fn a_second_driver_starts_from_the_beginning() {
    let mut bench = bench();
    activate(&mut bench.host, ALL).unwrap();
    bench.host.reset();
    bench.host.reset();
    bench.kernel.take_asked();
    activate(&mut bench.host, ALL).unwrap();
    assert_eq!(
        bench.kernel.take_asked(),
        // The memory is known.
        [
            Asked::Features(1 << 32),
            ring(0, 0),
            ring(1, 0),
            Asked::Running(true)
        ]
    );
}

#[test]
fn a_pause_takes_the_rings_back_and_a_resume_goes_on_from_there() {
    let mut bench = bench();
    activate(&mut bench.host, ALL).unwrap();
    bench.kernel.take_asked();
    let positions = bench.host.pause().unwrap();
    let at = |next_avail, next_used| RingPosition {
        next_avail,
        next_used,
    };
    assert_eq!(positions, [at(7, 5), at(8, 5), at(0, 0)]);
    assert_eq!(bench.host.pause().unwrap(), positions, "twice is once");
    assert_eq!(
        bench.kernel.take_asked(),
        [
            Asked::Running(false),
            Asked::Position(0),
            Asked::Position(1)
        ]
    );
    bench.host.resume().unwrap();
    assert_eq!(
        bench.kernel.take_asked(),
        [
            Asked::Features(1 << 32),
            ring(0, 7),
            ring(1, 8),
            Asked::Running(true)
        ]
    );
}

#[test]
fn a_driver_that_comes_during_a_pause_starts_after_it() {
    let mut bench = bench();
    bench.host.pause().unwrap();
    activate(&mut bench.host, ALL).unwrap();
    assert!(!bench.kernel.running());
    bench.host.resume().unwrap();
    assert!(bench.kernel.running());
}

#[test]
fn a_kernel_that_does_not_give_a_position_is_given_up() {
    let mut bench = bench();
    activate(&mut bench.host, ALL).unwrap();
    bench.kernel.refuse("position");
    bench.host.pause().unwrap();
    assert_eq!(*bench.line.failures.lock().unwrap(), [true]);
    let event = bench.events.try_recv().unwrap();
    assert!(matches!(event.kind, DeviceEventKind::Failed(_)));
    bench.host.resume().unwrap();
    assert!(!bench.kernel.running());
}

#[test]
fn a_kernel_that_refuses_to_start_does_not_run() {
    for operation in ["features", "memory", "ring", "start"] {
        let mut bench = bench();
        bench.kernel.refuse(operation);
        let error = activate(&mut bench.host, ALL).unwrap_err();
        assert!(
            matches!(error, VirtioError::KernelDevice { operation: told, .. } if told == operation)
        );
        assert!(!bench.kernel.running());
    }
}

#[test]
fn a_stopped_device_starts_no_more() {
    let mut bench = bench();
    activate(&mut bench.host, ALL).unwrap();
    bench.host.stop();
    bench.host.stop();
    assert!(!bench.kernel.running());
    bench.host.reset();
    assert!(matches!(
        activate(&mut bench.host, ALL),
        Err(VirtioError::Stopped)
    ));
    bench.host.pause().unwrap();
    bench.host.resume().unwrap();
    assert!(!bench.kernel.running());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Activate([bool; 3]),
    Reset,
    Pause,
    Resume,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Activate(ALL)),
        1 => any::<[bool; 3]>().prop_map(Step::Activate),
        3 => Just(Step::Reset),
        3 => Just(Step::Pause),
        3 => Just(Step::Resume),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    /// After any order of steps, the kernel works exactly when a driver that is ready is neither
    /// paused nor over; and its rules are kept all the way, which `Kernel` sees to.
    #[test]
    fn the_kernel_runs_when_it_is_to(steps in prop::collection::vec(step(), 0..30)) {
        let Bench { kernel, mut host, .. } = bench();
        let (mut live, mut paused, mut stopped) = (false, false, false);
        for step in steps {
            match step {
                // A transport activates only what was reset.
                Step::Activate(_) if live => {}
                Step::Activate(ready) => {
                    let worked = activate(&mut host, ready).is_ok();
                    let both = ready[0] && ready[1];
                    prop_assert_eq!(worked, both && (paused || !stopped));
                    live = both && worked;
                    if !worked {
                        host.reset();
                    }
                }
                Step::Reset => {
                    host.reset();
                    live = false;
                }
                Step::Pause => {
                    prop_assert!(host.pause().is_ok());
                    paused = true;
                }
                Step::Resume => {
                    prop_assert!(host.resume().is_ok());
                    paused = false;
                }
                Step::Stop => {
                    host.stop();
                    stopped = true;
                }
            }
            prop_assert_eq!(kernel.running(), live && !paused && !stopped);
        }
    }
}
