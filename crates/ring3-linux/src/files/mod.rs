//! Files: a read-only folder of the host, files in memory over it, and pipes.

mod change;
mod listing;
mod lower;
mod node;
mod pipe;
mod root;
mod status;
mod tree;
mod walk;

pub use listing::Listing;
pub use lower::LowerFile;
pub use node::{Body, Device, Node, now};
pub use pipe::{Reader, Writer, pipe};
pub use status::{Layout, Moment, S_IFIFO, S_IFLNK, Status};
pub use tree::{Base, Found, Tree, What};

/// User and group that programs run as, and that own files in memory.
pub const USER: u32 = 1000;
