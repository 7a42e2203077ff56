use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use microvm_virtio::{Device, DeviceError, QueueSet};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemory;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A call that the device got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Features(u64),
    Queue(usize),
    Host,
    WriteConfig(u32, Vec<u8>),
    Reset,
}

/// What the device does at its next queue event instead of using all buffers.
#[derive(Debug)]
pub enum Script {
    Fail,
    Panic,
    ChangeConfig,
    /// Leaves all buffers where they are.
    Leave,
    /// Waits for a word of the test, and leaves all buffers then.
    Hold(Receiver<()>),
}

/// A device that reports its calls, and uses each buffer with a length of 7.
pub struct Probe {
    calls: Sender<Call>,
    script: Arc<Mutex<VecDeque<Script>>>,
    source: Arc<EventFd>,
    sizes: Vec<u16>,
    features: u64,
}

impl Probe {
    pub const TYPE: u32 = 42;
    pub const FEATURES: u64 = 1 << 29 | 1 << 5;
    pub const CONFIG: [u8; 6] = [1, 2, 3, 4, 5, 6];

    pub fn new(calls: Sender<Call>, sizes: &[u16]) -> Self {
        Self {
            calls,
            script: Arc::default(),
            source: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap()),
            sizes: sizes.to_vec(),
            features: Self::FEATURES,
        }
    }

    pub fn with_features(mut self, features: u64) -> Self {
        self.features = features;
        self
    }

    /// Where to say what the device should do.
    pub fn script(&self) -> Arc<Mutex<VecDeque<Script>>> {
        Arc::clone(&self.script)
    }

    /// What the device waits for on the host's side.
    pub fn source(&self) -> Arc<EventFd> {
        Arc::clone(&self.source)
    }

    fn report(&self, call: Call) {
        let _ = self.calls.send(call);
    }
}

impl<M: GuestMemory> Device<M> for Probe {
    fn device_type(&self) -> u32 {
        Self::TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        data.fill(0);
        let rest = Self::CONFIG.get(offset as usize..).unwrap_or_default();
        for (target, source) in data.iter_mut().zip(rest) {
            *target = *source;
        }
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        self.report(Call::WriteConfig(offset, data.to_vec()));
    }

    fn set_acked_features(&mut self, features: u64) {
        self.report(Call::Features(features));
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is that of `self.source`, which the borrow outlives.
        Some(unsafe { BorrowedFd::borrow_raw(self.source.as_raw_fd()) })
    }

    fn queue_event(
        &mut self,
        index: usize,
        memory: &M,
        queues: &mut dyn QueueSet,
    ) -> Result<(), DeviceError> {
        self.report(Call::Queue(index));
        let script = self.script.lock().unwrap().pop_front();
        match script {
            Some(Script::Fail) => {
                return Err(DeviceError::Buffer {
                    queue: index,
                    reason: "the script says so",
                });
            }
            Some(Script::Panic) => panic!("the script says so"),
            Some(Script::ChangeConfig) => queues.signal_config(),
            Some(Script::Leave) => return Ok(()),
            Some(Script::Hold(word)) => {
                let _ = word.recv();
                return Ok(());
            }
            None => {}
        }
        let queue = queues.queue(index).unwrap();
        for _ in 0..queue.size() {
            let Some(chain) = queue.iter(memory).unwrap().next() else {
                break;
            };
            let head = chain.head_index();
            queue.add_used(memory, head, 7).unwrap();
        }
        if queue.needs_notification(memory).unwrap() {
            queues.signal(index);
        }
        Ok(())
    }

    fn host_event(&mut self, _memory: &M, _queues: &mut dyn QueueSet) -> Result<(), DeviceError> {
        let _ = self.source.read();
        self.report(Call::Host);
        Ok(())
    }

    fn reset(&mut self) {
        self.report(Call::Reset);
    }
}
