//! Trees of files as tar streams (POSIX pax, with GNU's sparse format 1.0), for both ends of a copy between host and guest.
//!
//! [`Packer`] is pulled and [`Unpacker`] is pushed, both bit by bit: neither reads or waits for a stream, so each end keeps
//! its own way of flow control, and nothing here holds a whole file or a whole list.
//!
//! Who unpacks does not trust the archive. Every name is checked before the file system is asked, every step of a path is
//! opened relative to a descriptor without following links, and lengths have limits before memory is taken for them.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod attributes;
mod content;
mod decoder;
mod encoder;
mod error;
mod found;
mod header;
mod linked;
mod names;
mod numbers;
mod pack;
mod pattern;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

pub use error::Error;
pub use names::source_name;
pub use pack::{PackOptions, Packer};
pub use unpack::{UnpackOptions, Unpacker};

/// How far a copy has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files, folders and links so far.
    pub entries: u64,
    /// Bytes of content so far; holes do not count.
    pub bytes: u64,
    /// The name in the archive of the newest entry.
    pub name: Vec<u8>,
}
