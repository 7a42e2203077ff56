//! The serial console's UART, as the guest sees it.
//!
//! Bytes wait in two bounded places: what the guest sent and the host has not taken, and the
//! UART's own receive FIFO. The guest never waits for the host: what does not fit is dropped and
//! counted. The host waits for the guest, by [`super::Console`].

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microvm_virtio::ThreadClock;
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// Output that waits for the host at most, in bytes.
pub(super) const OUTPUT_MAX: usize = 64 << 10;
/// Registers of the UART.
const REGISTERS: u64 = 8;

type Uart = vm_superio::Serial<InterruptLine, NoEvents, Output>;

/// What passed over the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsoleMetrics {
    /// Bytes that the guest sent.
    pub output_bytes: u64,
    /// Bytes among them that were dropped because nobody took them in time.
    pub dropped_bytes: u64,
    /// Bytes that the guest was given.
    pub input_bytes: u64,
}

/// Counts what passes; outlives the UART, for the machine's metrics.
#[derive(Debug, Default)]
pub struct ConsoleCounters {
    output: AtomicU64,
    dropped: AtomicU64,
    input: AtomicU64,
    thread: Arc<ThreadClock>,
}

impl ConsoleCounters {
    /// The clock of the thread on the host's side.
    #[must_use]
    pub fn thread(&self) -> &Arc<ThreadClock> {
        &self.thread
    }

    /// What passed so far.
    #[must_use]
    pub fn metrics(&self) -> ConsoleMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConsoleMetrics {
            output_bytes: get(&self.output),
            dropped_bytes: get(&self.dropped),
            input_bytes: get(&self.input),
        }
    }
}

/// A 16550.
pub struct Serial {
    state: Mutex<State>,
    counters: Arc<ConsoleCounters>,
    /// Wakes the host's side.
    wake: EventFd,
}

struct State {
    uart: Uart,
    /// The host has bytes for which the FIFO had no room.
    input_waits: bool,
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Serial {
    /// A UART that raises `interrupt` in the guest and keeps output for the host if `has_reader`.
    ///
    /// # Errors
    ///
    /// When the eventfd that wakes the host's side cannot be made.
    pub fn new(interrupt: EventFd, has_reader: bool) -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let counters = Arc::new(ConsoleCounters::default());
        let output = Output {
            bytes: VecDeque::new(),
            has_reader,
            counters: Arc::clone(&counters),
        };
        Ok(Self {
            state: Mutex::new(State {
                uart: Uart::new(InterruptLine(interrupt), output),
                input_waits: false,
            }),
            counters,
            wake,
        })
    }

    /// The counts of what passes.
    #[must_use]
    pub fn counters(&self) -> Arc<ConsoleCounters> {
        Arc::clone(&self.counters)
    }

    /// Turns readable when there is output, or room for input that had to wait.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Copies output that waits to `buffer`, without taking it; returns the number of bytes.
    pub(super) fn peek_output(&self, buffer: &mut [u8]) -> usize {
        let mut state = self.lock();
        let bytes = &mut state.uart.writer_mut().bytes;
        let count = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes.iter()) {
            *to = *from;
        }
        count
    }

    /// Takes `count` bytes that the host has from the output.
    pub(super) fn consume_output(&self, count: usize) {
        let mut state = self.lock();
        let bytes = &mut state.uart.writer_mut().bytes;
        let count = bytes.len().min(count);
        bytes.drain(..count);
    }

    /// Nobody will take output any more: what waits and what follows is dropped.
    pub(super) fn drop_reader(&self) {
        let mut state = self.lock();
        let output = state.uart.writer_mut();
        output.has_reader = false;
        let lost = std::mem::take(&mut output.bytes).len() as u64;
        self.counters.dropped.fetch_add(lost, Ordering::Relaxed);
    }

    /// Gives the guest as much of `bytes` as it has room for; returns the number of bytes. When
    /// that is not all, [`Serial::wake`] tells when to come again.
    pub(super) fn push_input(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        let count = if state.uart.fifo_capacity() == 0 {
            0
        } else {
            // An interrupt that cannot be raised loses no bytes: the guest finds them when it
            // looks. In loopback mode nothing is taken.
            state.uart.enqueue_raw_bytes(bytes).unwrap_or(0)
        };
        state.input_waits = count < bytes.len();
        self.counters
            .input
            .fetch_add(count as u64, Ordering::Relaxed);
        count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the host's side if input waited; for when something may have changed for it.
    fn retry_input(&self, state: &mut State) {
        if std::mem::take(&mut state.input_waits) {
            self.wake_host();
        }
    }

    fn wake_host(&self) {
        // Only fails when the counter is full: then it is readable anyway.
        let _ = self.wake.write(1);
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let mut state = self.lock();
        for (register, byte) in (offset..REGISTERS).zip(data) {
            let Ok(register) = u8::try_from(register) else {
                continue;
            };
            *byte = state.uart.read(register);
        }
        if state.uart.fifo_capacity() > 0 {
            self.retry_input(&mut state);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.lock();
        let was_empty = state.uart.writer().bytes.is_empty();
        for (register, &byte) in (offset..REGISTERS).zip(data) {
            let Ok(register) = u8::try_from(register) else {
                continue;
            };
            // The only error is an interrupt that cannot be raised, for which there is no remedy.
            let _ = state.uart.write(register, byte);
        }
        if was_empty && !state.uart.writer().bytes.is_empty() {
            self.wake_host();
        }
        // The guest may have left loopback mode, in which it takes no input.
        self.retry_input(&mut state);
    }
}

/// The UART's interrupt line, by an eventfd that KVM watches.
#[derive(Debug)]
struct InterruptLine(EventFd);

impl Trigger for InterruptLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// What the guest sent and the host has not taken.
struct Output {
    bytes: VecDeque<u8>,
    has_reader: bool,
    counters: Arc<ConsoleCounters>,
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = if self.has_reader {
            OUTPUT_MAX - self.bytes.len().min(OUTPUT_MAX)
        } else {
            0
        };
        let kept = data.len().min(room);
        self.bytes.extend(data.iter().take(kept));
        let count = |counter: &AtomicU64, bytes: usize| {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        count(&self.counters.output, data.len());
        count(&self.counters.dropped, data.len() - kept);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
