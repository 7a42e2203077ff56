//! Helper processes that end with the process that started them.
//!
//! A microVM may need processes of its own: QEMU, a virtiofsd, a confined device. They must never outlive their owner,
//! whatever kills it, must inherit no descriptor that was not meant for them, and starting one must not stop the
//! caller's event loop. [`spawn`] gives that:
//!
//! - One long-lived thread of this crate starts every helper. The kernel binds `PR_SET_PDEATHSIG` to the *thread* that
//!   forked, so a helper lives as long as this process does, and not as long as some thread of a pool.
//! - The child shares the parent's memory until it executes its program (`CLONE_VM | CLONE_VFORK`), so a start costs
//!   the same however large the parent is. A plain `fork` would copy the page tables of the whole parent and make
//!   each of its pages fault once more. Only the crate's own thread waits for the `execve`.
//! - The same thread reaps: no helper stays a zombie, also when its [`Child`] was dropped long ago.
//! - Signals go through a pidfd, so they can never reach a stranger that got the same process number.
//!
//! ```no_run
//! use microvm_process::{SpawnOptions, spawn};
//!
//! let child = spawn(SpawnOptions::new("/bin/true"))?;
//! assert!(child.wait().success());
//! # Ok::<(), microvm_process::SpawnError>(())
//! ```
//!
//! Needs Linux 5.9 (`close_range`).

mod child;
mod error;
mod launch;
mod options;
mod prepare;
mod spawner;

pub use child::{Child, ExitStatus};
pub use error::{SetUpStep, SpawnError};
pub use options::{SpawnOptions, Stdio};

/// Starts a helper process and returns as soon as its program runs.
///
/// The helper gets: [`SpawnOptions::end_signal`] when this process ends, its own process group, default signal dispositions and an empty
/// signal mask, the descriptors of [`SpawnOptions::fds`] and its three standard streams, and no other descriptor.
///
/// Blocks for the time of an `execve` (about 0.1 to 1 ms).
///
/// # Errors
///
/// [`SpawnError::Execute`] when the program cannot be executed (its source tells `ENOENT` from `EACCES`); the other
/// variants name the step that failed. No process is left behind then.
pub fn spawn(options: SpawnOptions) -> Result<Child, SpawnError> {
    spawner::Spawner::global()?.spawn(prepare::Prepared::new(options)?)
}
