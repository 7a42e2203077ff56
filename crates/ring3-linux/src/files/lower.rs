//! Files of the root folder that are open.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::fstat;
use rustix::io::Errno;

use super::status::Status;
use crate::budget::Charge;

/// An open file of the root folder. As long as anything has it, a mapping too, it counts as one of
/// the open files that there may be, for it is a descriptor of the host.
#[derive(Debug)]
pub struct LowerFile {
    file: File,
    /// As it was when it was opened.
    status: Status,
    _permit: Charge,
}

impl LowerFile {
    pub fn new(file: OwnedFd, status: Status, permit: Charge) -> Self {
        Self {
            file: File::from(file),
            status,
            _permit: permit,
        }
    }

    /// Reads what one call gives; nothing at the end.
    pub fn read_some(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => {
                    return result
                        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
            }
        }
    }

    /// What is known of it now.
    pub fn status(&self) -> Result<Status, Errno> {
        let now = Status::of(&fstat(&self.file)?);
        Ok(Status {
            device: self.status.device,
            user: self.status.user,
            group: self.status.group,
            ..now
        })
    }
}
