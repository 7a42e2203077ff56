//! The daemon as its front ends and its callers see it: the built executable, driven over its socket by a front end
//! that makes every request, good or bad, by hand.
//!
//! Run as root it also tries what only root can: other users, mounts, chroot. What cannot be tried is said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod driver;
mod ends;
mod files;
mod fuse;
mod hostile;
mod life;
mod names;
mod options;
mod process;
mod rings;
mod sandbox;
mod single_file;
mod state;
mod transfer;
