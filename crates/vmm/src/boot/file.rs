//! Opening an image file without being held up by what is not one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::error::{BootError, Image};
use crate::memory::Ram;

/// An open regular file and its length.
#[derive(Debug)]
pub(super) struct ImageFile<'a> {
    pub image: Image,
    pub path: &'a Path,
    pub file: File,
    pub length: u64,
}

impl<'a> ImageFile<'a> {
    /// Opens `path` for reading; never waits, not even for a FIFO's writer.
    pub fn open(image: Image, path: &'a Path) -> Result<Self, BootError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => BootError::Missing {
                image,
                path: path.to_owned(),
            },
            _ => BootError::Unreadable {
                image,
                path: path.to_owned(),
                source,
            },
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if let Some(kind) = other_kind(&metadata.file_type()) {
            return Err(BootError::NotAFile {
                image,
                path: path.to_owned(),
                kind,
            });
        }
        Ok(Self {
            image,
            path,
            file,
            length: metadata.len(),
        })
    }

    /// Reads as much of `buffer` as the file has at `offset`; returns the number of bytes.
    pub fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<usize, BootError> {
        let mut total = 0;
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    offset = offset.saturating_add(count as u64);
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(BootError::Unreadable {
                        image: self.image,
                        path: self.path.to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(total)
    }

    /// Copies a part of the file to guest memory.
    pub fn load(&self, ram: &Ram, offset: u64, length: u64, to: u64) -> Result<(), BootError> {
        ram.load(&self.file, offset, length, to)
            .map_err(|source| BootError::Load {
                image: self.image,
                path: self.path.to_owned(),
                source,
            })
    }

    pub fn not_a_kernel(&self, reason: &'static str) -> BootError {
        BootError::NotAKernel {
            path: self.path.to_owned(),
            reason,
        }
    }

    pub fn truncated(&self, expected: u64) -> BootError {
        BootError::Truncated {
            path: self.path.to_owned(),
            expected,
            actual: self.length,
        }
    }

    pub fn other_architecture(&self, architecture: &'static str) -> BootError {
        BootError::OtherArchitecture {
            path: self.path.to_owned(),
            architecture,
        }
    }
}

fn other_kind(file_type: &std::fs::FileType) -> Option<&'static str> {
    if file_type.is_file() {
        None
    } else if file_type.is_dir() {
        Some("a directory")
    } else if file_type.is_fifo() {
        Some("a FIFO")
    } else if file_type.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
