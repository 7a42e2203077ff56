//! The keyboard controller, as far as it can reset the machine.

use crate::arch::x86_64::layout::{I8042_COMMAND, I8042_DATA};
use crate::bus::BusDevice;
use crate::run_loop::{ExitReason, Gate};
use std::sync::Arc;

/// Command that pulses the CPU's reset line.
const PULSE_RESET: u8 = 0xfe;
const COMMAND_OFFSET: u64 = (I8042_COMMAND - I8042_DATA) as u64;

/// A keyboard controller without a keyboard, for ports 0x60 to 0x64.
///
/// Both of its ports read as 0: buffers empty. Linux waits for that before it resets by the
/// keyboard controller, for seconds where the ports read as all ones.
#[derive(Debug)]
pub struct I8042 {
    gate: Arc<Gate>,
}

impl I8042 {
    /// A controller that ends the machine through `gate`.
    #[must_use]
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (port, byte) in (offset..).zip(data) {
            // The ports in between are not the controller's.
            *byte = if port == 0 || port == COMMAND_OFFSET {
                0
            } else {
                0xff
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let reset = (offset..)
            .zip(data)
            .any(|(port, &byte)| port == COMMAND_OFFSET && byte == PULSE_RESET);
        if reset {
            self.gate.finish(ExitReason::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_ends_the_machine() {
        let gate = Arc::new(Gate::new());
        let controller = I8042::new(Arc::clone(&gate));
        for (offset, data) in [(0, &[0xfe][..]), (4, &[0xd1]), (4, &[]), (1, &[0xfe; 3])] {
            controller.write(offset, data);
        }
        assert_eq!(gate.reason(), None);
        controller.write(4, &[0xfe]);
        assert_eq!(gate.reason(), Some(ExitReason::Reset));
    }

    #[test]
    fn buffers_read_as_empty() {
        let controller = I8042::new(Arc::new(Gate::new()));
        let mut data = [7; 5];
        controller.read(0, &mut data);
        assert_eq!(data, [0, 0xff, 0xff, 0xff, 0]);
    }
}
