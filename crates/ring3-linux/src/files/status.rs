//! What is known of a file, and the structures that programs get it in (`stat(2)`, `statx(2)`).

use rustix::fs::Stat;

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFIFO: u32 = 0o010_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFLNK: u32 = 0o120_000;

/// A time, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub seconds: i64,
    pub nanoseconds: i64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    pub device: u64,
    pub inode: u64,
    pub mode: u32,
    pub links: u64,
    pub user: u32,
    pub group: u32,
    pub special: u64,
    pub size: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub accessed: Moment,
    pub modified: Moment,
    pub changed: Moment,
}

impl Status {
    #[allow(clippy::useless_conversion)] // Types of the fields differ by architecture.
    pub fn of(stat: &Stat) -> Self {
        let moment = |seconds: i64, nanoseconds: u64| Moment {
            seconds,
            nanoseconds: i64::try_from(nanoseconds).unwrap_or(0),
        };
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            mode: stat.st_mode,
            links: stat.st_nlink.into(),
            user: stat.st_uid,
            group: stat.st_gid,
            special: stat.st_rdev.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            block_size: u64::try_from(stat.st_blksize).unwrap_or(4096),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            accessed: moment(stat.st_atime, stat.st_atime_nsec.into()),
            modified: moment(stat.st_mtime, stat.st_mtime_nsec.into()),
            changed: moment(stat.st_ctime, stat.st_ctime_nsec.into()),
        }
    }

    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    pub fn is_folder(&self) -> bool {
        self.kind() == S_IFDIR
    }

    /// `struct stat` of x86-64.
    pub fn to_stat(self) -> [u8; 144] {
        let mut out = Layout([0; 144]);
        out.u64(0, self.device);
        out.u64(8, self.inode);
        out.u64(16, self.links);
        out.u32(24, self.mode);
        out.u32(28, self.user);
        out.u32(32, self.group);
        out.u64(40, self.special);
        out.u64(48, self.size);
        out.u64(56, self.block_size);
        out.u64(64, self.blocks);
        for (offset, moment) in [
            (72, self.accessed),
            (88, self.modified),
            (104, self.changed),
        ] {
            out.u64(offset, moment.seconds.cast_unsigned());
            out.u64(offset + 8, moment.nanoseconds.cast_unsigned());
        }
        out.0
    }

    /// `struct statx`.
    #[allow(clippy::cast_possible_truncation)] // Fields of the structure are as short.
    pub fn to_statx(self) -> [u8; 256] {
        const STATX_BASIC_STATS: u32 = 0x7ff;
        let mut out = Layout([0; 256]);
        out.u32(0, STATX_BASIC_STATS);
        out.u32(4, self.block_size as u32);
        out.u32(16, self.links as u32);
        out.u32(20, self.user);
        out.u32(24, self.group);
        out.u32(28, self.mode & 0xffff);
        out.u64(32, self.inode);
        out.u64(40, self.size);
        out.u64(48, self.blocks);
        for (offset, moment) in [
            (64, self.accessed),
            (96, self.changed),
            (112, self.modified),
        ] {
            out.u64(offset, moment.seconds.cast_unsigned());
            out.u32(offset + 8, moment.nanoseconds as u32);
        }
        for (offset, device) in [(128, self.special), (136, self.device)] {
            out.u32(offset, (device >> 8 & 0xfff) as u32);
            out.u32(offset + 4, (device & 0xff | device >> 12 & 0xf_ff00) as u32);
        }
        out.0
    }
}

/// A structure of little-endian numbers.
pub struct Layout<const LENGTH: usize>(pub [u8; LENGTH]);

impl<const LENGTH: usize> Layout<LENGTH> {
    pub fn u64(&mut self, offset: usize, value: u64) {
        self.bytes(offset, &value.to_le_bytes());
    }

    pub fn u32(&mut self, offset: usize, value: u32) {
        self.bytes(offset, &value.to_le_bytes());
    }

    pub fn bytes(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}
