//! What differs by architecture. Only x86-64 so far; a second one gets its own folder.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
