//! Unpacking the ELF kernel that a bzImage carries, so that it can be booted by PVH.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{BootError, Image};
use super::file::ImageFile;
use super::kernel::{Kind, identify};
use super::lz4::{self, Lz4Error};
use super::{bzimage, elf};

/// Largest kernel that is unpacked, in bytes.
const UNPACKED_MAX: u64 = 512 << 20;

/// Why no ELF kernel came out of a bzImage.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The bzImage cannot be read, or is none.
    #[error(transparent)]
    Image(#[from] BootError),
    /// The kernel is packed by a method that is not unpacked here: boot the bzImage itself.
    #[error("Kernel {} is compressed with {method}, only LZ4 is unpacked here", path.display())]
    Compression {
        /// The bzImage.
        path: PathBuf,
        /// Name of the method.
        method: &'static str,
    },
    /// The packed kernel is damaged.
    #[error("Kernel {} has a damaged payload", path.display())]
    Payload {
        /// The bzImage.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Lz4Error,
    },
    /// The unpacked kernel would be absurdly large.
    #[error("Kernel {} announces {bytes} unpacked bytes, at most {max} are unpacked", path.display())]
    TooLarge {
        /// The bzImage.
        path: PathBuf,
        /// Announced size, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// The result cannot be written.
    #[error("Kernel cannot be written to {}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Writes the ELF kernel in `bzimage` to `out`, which appears whole or not at all. A file that is
/// an ELF kernel already is copied.
///
/// # Errors
///
/// [`ExtractError::Compression`] says that the bzImage is sound but has to be booted as it is;
/// every other one that it cannot be used, or `out` not be written.
pub fn extract_vmlinux(bzimage: &Path, out: &Path) -> Result<(), ExtractError> {
    let mut file = ImageFile::open(Image::Kernel, bzimage)?;
    let (kind, head) = identify(&file)?;
    let payload = match kind {
        Kind::Elf => {
            elf::check(&file, &head)?;
            Payload {
                offset: 0,
                length: file.length,
                packing: Packing::None,
            }
        }
        Kind::BzImage => Payload::find(&file, &bzimage::check(&file, &head)?)?,
    };
    let output = |source| ExtractError::Output {
        path: out.to_owned(),
        source,
    };
    let temporary = Temporary::create(out).map_err(output)?;
    let mut writer = &temporary.file;
    payload.unpack(&mut file, &mut writer)?;
    writer.flush().map_err(output)?;
    check_result(bzimage, &temporary.path)?;
    temporary.persist(out).map_err(output)
}

enum Packing {
    None,
    Lz4 { unpacked: u64 },
}

/// Where the kernel lies in the bzImage.
struct Payload {
    offset: u64,
    length: u64,
    packing: Packing,
}

impl Payload {
    fn find(file: &ImageFile<'_>, header: &bzimage::Header) -> Result<Self, ExtractError> {
        let inside = header.payload_offset.saturating_add(header.payload_length);
        if header.payload_length < 8 || inside > header.length {
            return Err(file.not_a_kernel("its payload lies outside of it").into());
        }
        let offset = header.protected_mode + header.payload_offset;
        let length = header.payload_length;
        let mut magic = [0; 6];
        let mut size = [0; 4];
        file.read_at(&mut magic, offset)?;
        file.read_at(&mut size, offset + length - 4)?;
        if magic.starts_with(b"\x7fELF") {
            return Ok(Self {
                offset,
                length,
                packing: Packing::None,
            });
        }
        if !magic.starts_with(&lz4::MAGIC) {
            return Err(ExtractError::Compression {
                path: file.path.to_owned(),
                method: method(&magic),
            });
        }
        let unpacked = u64::from(u32::from_le_bytes(size));
        if unpacked > UNPACKED_MAX {
            return Err(ExtractError::TooLarge {
                path: file.path.to_owned(),
                bytes: unpacked,
                max: UNPACKED_MAX,
            });
        }
        Ok(Self {
            offset,
            length: length - 4,
            packing: Packing::Lz4 { unpacked },
        })
    }

    fn unpack(
        &self,
        file: &mut ImageFile<'_>,
        output: &mut impl Write,
    ) -> Result<(), ExtractError> {
        let failed = |source| ExtractError::Payload {
            path: file.path.to_owned(),
            source,
        };
        let mut input = &file.file;
        input
            .seek(SeekFrom::Start(self.offset))
            .map_err(|error| failed(error.into()))?;
        match self.packing {
            Packing::None => io::copy(&mut input.take(self.length), output)
                .map(drop)
                .map_err(|error| failed(error.into())),
            Packing::Lz4 { unpacked } => {
                lz4::unpack(&mut input, self.length, unpacked, output).map_err(failed)
            }
        }
    }
}

fn method(magic: &[u8; 6]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => "gzip",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0x5d, 0, 0, ..] => "LZMA",
        [0xfd, b'7', b'z', b'X', b'Z', _] => "xz",
        [0x89, b'L', b'Z', b'O', ..] => "LZO",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => "an unknown method",
    }
}

/// The unpacked file must itself be a kernel; errors name the bzImage.
fn check_result(bzimage: &Path, unpacked: &Path) -> Result<(), ExtractError> {
    let result = ImageFile::open(Image::Kernel, unpacked)?;
    let result = ImageFile {
        path: bzimage,
        ..result
    };
    match identify(&result)? {
        (Kind::Elf, head) => elf::check(&result, &head).map(drop).map_err(Into::into),
        (Kind::BzImage, _) => Err(result.not_a_kernel("its payload is another bzImage").into()),
    }
}

/// A file beside the result that goes away unless it becomes the result.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(out: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut name = out
            .file_name()
            .ok_or(io::ErrorKind::InvalidFilename)?
            .to_owned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        let path = out.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self { path, file })
    }

    fn persist(self, out: &Path) -> io::Result<()> {
        fs::rename(&self.path, out)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}
