//! ACPI's hardware-reduced power registers: sleep, reset, and the power button.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::eventfd::EventFd;

use crate::acpi::{RESET_VALUE, SLEEP_TYPE_OFF};
use crate::arch::x86_64::layout::{ACPI_EVENT, ACPI_RESET, ACPI_SLEEP_CONTROL};
use crate::bus::BusDevice;
use crate::run_loop::{ExitReason, Gate};

const SLEEP_CONTROL: u64 = 0;
const EVENT: u64 = (ACPI_EVENT - ACPI_SLEEP_CONTROL) as u64;
const RESET: u64 = (ACPI_RESET - ACPI_SLEEP_CONTROL) as u64;

/// Sleep control register: go to sleep now; bits 2 to 4 say how.
const SLEEP_ENABLE: u8 = 1 << 5;
/// Event register: the power button was pressed.
const EVENT_BUTTON: u8 = 1;

/// The power registers.
#[derive(Debug)]
pub struct Power {
    gate: Arc<Gate>,
    events: AtomicU8,
    interrupt: EventFd,
}

impl Power {
    /// Registers that end the machine through `gate` and tell the guest of events by `interrupt`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, interrupt: EventFd) -> Self {
        Self {
            gate,
            events: AtomicU8::new(0),
            interrupt,
        }
    }

    /// Presses the power button. What the guest makes of it is its own business.
    ///
    /// # Errors
    ///
    /// When the interrupt cannot be raised.
    pub fn press_button(&self) -> io::Result<()> {
        self.events.fetch_or(EVENT_BUTTON, Ordering::SeqCst);
        self.interrupt.write(1)
    }
}

impl BusDevice for Power {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (register, byte) in (offset..).zip(data) {
            *byte = match register {
                // Reading takes the events: the guest's event method does so once an interrupt.
                EVENT => self.events.swap(0, Ordering::SeqCst),
                _ => 0,
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        for (register, &value) in (offset..).zip(data) {
            match register {
                SLEEP_CONTROL if value == SLEEP_ENABLE | SLEEP_TYPE_OFF << 2 => {
                    self.gate.finish(ExitReason::PowerOff);
                }
                RESET if value == RESET_VALUE => self.gate.finish(ExitReason::Reset),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power() -> (Arc<Gate>, Power) {
        let gate = Arc::new(Gate::new());
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        (Arc::clone(&gate), Power::new(gate, interrupt))
    }

    #[test]
    fn sleeping_with_the_type_of_s5_switches_off() {
        let (gate, power) = power();
        for value in [0x14, 0x20, 0x30, 0xff] {
            power.write(0, &[value]);
            assert_eq!(gate.reason(), None, "{value:#x}");
        }
        power.write(0, &[0x34]);
        assert_eq!(gate.reason(), Some(ExitReason::PowerOff));
    }

    #[test]
    fn the_reset_register_resets() {
        let (gate, power) = power();
        power.write(4, &[0]);
        power.write(3, &[1]);
        assert_eq!(gate.reason(), None);
        power.write(4, &[1]);
        assert_eq!(gate.reason(), Some(ExitReason::Reset));
    }

    #[test]
    fn a_press_is_told_once_with_an_interrupt() {
        let (_, power) = power();
        power.press_button().unwrap();
        power.press_button().unwrap();
        assert_eq!(power.interrupt.read().unwrap(), 2);
        let mut event = [0];
        power.read(2, &mut event);
        assert_eq!(event, [1]);
        power.read(2, &mut event);
        assert_eq!(event, [0]);
    }
}
