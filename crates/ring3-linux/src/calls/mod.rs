//! The system calls. Numbers are those of `asm/unistd_64.h`; behaviour is that of the man pages,
//! section 2.

mod descriptors;
mod memory;
mod path;
mod poll;
mod read;
mod read_write;
mod status;
mod system;
mod time;
mod write;

pub use read_write::fill_randomly;

use rustix::io::Errno;

use crate::process::{Answer, Ending, Process, Stop};

/// The one process, and its parent.
pub const PID: u32 = 2;
const PARENT: u64 = 1;
/// `AT_FDCWD`
const CWD: u64 = (-100i64).cast_unsigned();

/// An argument that is an `int`: programs leave garbage above.
pub fn int(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The argument of a call that is a path.
pub fn path_argument(number: u64) -> Option<usize> {
    Some(match number {
        // open, stat, lstat, access, execve, truncate, chdir, rename, mkdir, rmdir, creat, link,
        // unlink, symlink, readlink, chmod, chown, lchown, statfs, utime, utimes
        2 | 4 | 6 | 21 | 59 | 76 | 80 | 82..=90 | 92 | 94 | 132 | 137 | 235 => 0,
        // openat, mkdirat, mknodat, fchownat, futimesat, newfstatat, unlinkat, renameat, linkat,
        // readlinkat, fchmodat, faccessat, utimensat, renameat2, execveat, statx, openat2,
        // faccessat2, fchmodat2
        257..=265 | 267..=269 | 280 | 316 | 322 | 332 | 437 | 439 | 452 => 1,
        // symlinkat
        266 => 0,
        _ => return None,
    })
}

/// The argument of a call that is another path: the name that is made.
pub fn second_path_argument(number: u64) -> Option<usize> {
    Some(match number {
        // rename, link, symlink
        82 | 86 | 88 => 1,
        // symlinkat
        266 => 2,
        // renameat, linkat, renameat2
        264 | 265 | 316 => 3,
        _ => return None,
    })
}

impl Process<'_> {
    /// Answers a system call.
    #[allow(clippy::too_many_lines)] // A table.
    pub fn call(&mut self, number: u64, args: [u64; 6]) -> Answer {
        let [a, b, c, d, e, _] = args;
        match number {
            0 => self.read(a, b, c),
            1 => self.write(a, b, c),
            2 => self.open(CWD, a, b, c),
            3 => self.close(a),
            4 => self.stat(CWD, a, b, true),
            5 => self.fstat(a, b),
            6 => self.stat(CWD, a, b, false),
            7 => self.poll(a, b, c),
            8 => self.lseek(a, b, c),
            9 => self.mmap(args),
            10 => self.mprotect(a, b, c),
            11 => Ok(self.memory.unmap(a, b)?),
            12 => Ok(self.memory.set_break(a)),
            13 => self.rt_sigaction(args),
            14 => self.rt_sigprocmask(args),
            15 => self.rt_sigreturn(),
            16 => self.ioctl(a, b, c),
            17 => self.pread(a, b, c, d),
            18 => self.pwrite(a, b, c, d),
            19 => self.readv(a, b, c, None),
            20 => self.writev(a, b, c, None),
            21 => self.access(CWD, a, b, 0),
            22 => self.pipe(a, 0),
            23 => self.select(args, false),
            24 => Ok(0),
            25 => self.mremap(args),
            28 => self.madvise(a, b, c),
            32 => self.dup(a),
            33 => self.dup2(a, b),
            34 => self.pause(),
            35 => self.nanosleep(a, b),
            39 | 186 => Ok(u64::from(PID)),
            // No descriptor can do that, which programs are ready for.
            40 => Err(Errno::INVAL.into()),
            60 | 231 => Err(Stop::End(Ending::Exited(
                i32::try_from(a & 0xff).unwrap_or(0),
            ))),
            62 | 200 => self.kill(a, b),
            63 => self.uname(a),
            72 => self.fcntl(a, b, c),
            73 => self.descriptors.get(a).map(|_| 0).map_err(Stop::from),
            74 | 75 | 306 => self.sync(a),
            76 => self.truncate(a, b),
            77 => self.ftruncate(a, b),
            78 | 217 => self.getdents(a, b, c, number == 217),
            79 => self.getcwd(a, b),
            80 => self.chdir(a),
            81 => self.fchdir(a),
            82 => self.rename(CWD, a, CWD, b, 0),
            83 => self.mkdir(CWD, a, b),
            84 => self.unlink(CWD, a, false),
            85 => self.open(CWD, a, 0o1101, b),
            86 => self.link(CWD, a, CWD, b, 0),
            87 => self.unlink(CWD, a, true),
            88 => self.symlink(a, CWD, b),
            89 => self.readlink(CWD, a, b, c),
            90 => self.chmod(CWD, a, b),
            91 => self.fchmod(a, b),
            92 | 94 => self.chown(CWD, a, number == 92),
            93 => self.fchown(a),
            95 => {
                let before = self.umask;
                self.umask = u32::try_from(a & 0o777).unwrap_or(0);
                Ok(u64::from(before))
            }
            96 => self.gettimeofday(a, b),
            97 => self.getrlimit(a, b),
            98 => self.getrusage(a, b),
            99 => self.sysinfo(a),
            100 => self.times(a),
            102 | 104 | 107 | 108 => Ok(u64::from(crate::files::USER)),
            105 | 106 => self.set_ids(&[a]),
            117 | 119 => self.set_ids(&[a, b, c]),
            110 => Ok(PARENT),
            109 | 112 | 121 | 124 => self.group(number, a),
            111 => Ok(u64::from(PID)),
            113 | 114 => self.set_ids(&[a, b]),
            115 => self.getgroups(a),
            118 | 120 => self.get_three_ids(a, b, c),
            127 => self.rt_sigpending(args),
            131 => self.sigaltstack(args),
            132 => self.utime(a, b),
            137 => self.statfs(a, b),
            138 => self.fstatfs(a, b),
            157 => self.prctl(a, b),
            158 => self.arch_prctl(a, b),
            160 => self.setrlimit(a, b),
            201 => self.time(a),
            202 => self.futex(args),
            204 => self.sched_getaffinity(b, c),
            218 => Ok(u64::from(PID)),
            221 => Ok(0),
            228 => self.clock_gettime(a, b),
            229 => self.clock_getres(a, b),
            230 => self.clock_nanosleep(a, b, c, d),
            234 => self.kill(b, c),
            235 => self.utimes(CWD, a, b),
            257 => self.open(a, b, c, d),
            258 => self.mkdir(a, b, c),
            260 => self.chown(a, b, e & 0x100 == 0),
            261 => self.utimes(a, b, c),
            262 => self.newfstatat(a, b, c, d),
            263 => self.unlink(a, b, c & 0x200 == 0),
            264 => self.rename(a, b, c, d, 0),
            265 => self.link(a, b, c, d, e),
            266 => self.symlink(a, b, c),
            267 => self.readlink(a, b, c, d),
            268 | 452 => self.chmod(a, b, c),
            269 => self.access(a, b, c, 0),
            270 => self.select(args, true),
            271 => self.ppoll(a, b, c),
            273 => Ok(0),
            280 => self.utimensat(a, b, c, d),
            285 => self.fallocate(args),
            292 => self.dup3(a, b, c),
            293 => self.pipe(a, b),
            295 => self.readv(a, b, c, Some(d)),
            296 => self.writev(a, b, c, Some(d)),
            302 => self.prlimit(a, b, c, d),
            309 => self.getcpu(a, b),
            316 => self.rename(a, b, c, d, e),
            318 => self.getrandom(a, b, c),
            332 => self.statx(args),
            // No such capability: what glibc asks for when it starts.
            334 => Err(Errno::NOSYS.into()),
            436 => self.close_range(a, b, c),
            439 => self.access(a, b, c, d),
            _ => Err(Stop::Unsupported),
        }
    }
}
