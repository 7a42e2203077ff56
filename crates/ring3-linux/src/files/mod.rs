//! Files: a read-only folder of the host, files in memory over it, and pipes.

mod change;
mod listing;
mod node;
mod pipe;
mod root;
mod status;
mod tree;

pub use listing::Listing;
pub use node::{Body, Device, Node, now};
pub use pipe::{Reader, Writer, pipe};
pub use status::{Layout, Moment, S_IFIFO, S_IFLNK, S_IFREG, Status};
pub use tree::{Found, Tree, What};

/// User and group that programs run as, and that own files in memory.
pub const USER: u32 = 1000;
