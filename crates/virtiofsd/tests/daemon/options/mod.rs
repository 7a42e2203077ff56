//! What each option changes, and what is refused.

pub mod access;
pub mod agreed;
pub mod attributes;
pub mod ids;
pub mod log;
pub mod pool;
pub mod privileges;
pub mod refused;
