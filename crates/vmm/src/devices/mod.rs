//! Devices that the VMM emulates itself.

mod console;
mod i8042;
mod power;
pub mod rng;
mod serial;

pub use console::{Console, ConsoleError};
pub use i8042::I8042;
pub use power::Power;
pub use serial::{ConsoleCounters, ConsoleMetrics, Serial};
