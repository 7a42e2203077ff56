//! Calls that tell who and where a program is, and the few that do something with that.

use microvm_ring3::{Access, SegmentBases};
use rustix::io::Errno;

use super::read_write::fill_randomly;
use super::time::timeval;
use super::{PID, int};
use crate::files::{Layout, USER};
use crate::process::{Answer, Ending, Process, Stop};

/// Bytes of a field of `struct utsname`.
const FIELD: usize = 65;
/// The version that programs are told; glibc refuses to start on old ones.
const RELEASE: &[u8] = b"6.1.0-microvm";

const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;

const INFINITY: u64 = u64::MAX;
/// Most bytes that one call fills randomly before it looks whether the run is to end.
const LOOK: u64 = 4 << 20;

impl Process<'_> {
    /// `uname`
    pub fn uname(&mut self, address: u64) -> Answer {
        let mut out = Layout([0; 6 * FIELD]);
        let fields: [&[u8]; 6] = [b"Linux", b"microvm", RELEASE, b"#1", b"x86_64", b"(none)"];
        for (index, field) in fields.into_iter().enumerate() {
            out.bytes(index * FIELD, field);
        }
        self.memory.write(address, &out.0)?;
        Ok(0)
    }

    /// `arch_prctl`
    pub fn arch_prctl(&mut self, code: u64, address: u64) -> Answer {
        let failed = |error| Stop::End(Ending::Failed(error));
        let bases = self.context.segment_bases().map_err(failed)?;
        let bases = match int(code) {
            ARCH_SET_FS => SegmentBases {
                fs: address,
                ..bases
            },
            ARCH_SET_GS => SegmentBases {
                gs: address,
                ..bases
            },
            ARCH_GET_FS => return self.word(address, bases.fs),
            ARCH_GET_GS => return self.word(address, bases.gs),
            _ => return Err(Errno::INVAL.into()),
        };
        match self.context.set_segment_bases(bases) {
            Ok(()) => Ok(0),
            Err(microvm_ring3::Error::Range { .. }) => Err(Errno::PERM.into()),
            Err(error) => Err(failed(error)),
        }
    }

    fn word(&mut self, address: u64, word: u64) -> Answer {
        self.memory.write(address, &word.to_le_bytes())?;
        Ok(0)
    }

    /// `prctl`: names are taken and forgotten.
    pub fn prctl(&mut self, option: u64, argument: u64) -> Answer {
        const PR_GET_DUMPABLE: u32 = 3;
        const PR_SET_NAME: u32 = 15;
        const PR_GET_NAME: u32 = 16;
        const PR_SET_NO_NEW_PRIVS: u32 = 38;
        match int(option) {
            PR_GET_DUMPABLE | PR_SET_NO_NEW_PRIVS => Ok(0),
            PR_SET_NAME => {
                self.memory.piece(argument, 1, Access::Read)?;
                Ok(0)
            }
            PR_GET_NAME => {
                self.memory.write(argument, b"program\0\0\0\0\0\0\0\0\0")?;
                Ok(0)
            }
            // PR_SET_VMA, which names mappings, among others.
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// `prlimit64`: limits are told, and cannot be changed.
    pub fn prlimit(&mut self, pid: u64, resource: u64, new: u64, old: u64) -> Answer {
        if int(pid) != 0 && int(pid) != PID {
            return Err(Errno::SRCH.into());
        }
        let limit = match int(resource) {
            // RLIMIT_CPU
            0 => self
                .deadlines
                .cpu
                .map_or(INFINITY, |cpu| cpu.as_secs().max(1)),
            // RLIMIT_STACK
            3 => self.memory.stack_bytes(),
            // RLIMIT_CORE, RLIMIT_NPROC
            4 => 0,
            6 => 1,
            // RLIMIT_NOFILE
            7 => self.descriptors.limit() as u64,
            // RLIMIT_AS
            9 => self.tree.budget().limit(),
            1 | 2 | 5 | 8 | 10..16 => INFINITY,
            _ => return Err(Errno::INVAL.into()),
        };
        if new != 0 {
            let soft = self.memory.read_u64(new)?;
            let hard = self.memory.read_u64(new.wrapping_add(8))?;
            if soft > hard {
                return Err(Errno::INVAL.into());
            }
            if hard > limit {
                return Err(Errno::PERM.into());
            }
        }
        if old != 0 {
            let mut out = Layout([0; 16]);
            out.u64(0, limit);
            out.u64(8, limit);
            self.memory.write(old, &out.0)?;
        }
        Ok(0)
    }

    /// `getrlimit`
    pub fn getrlimit(&mut self, resource: u64, old: u64) -> Answer {
        let answer = self.prlimit(0, resource, 0, old)?;
        if old == 0 {
            return Err(Errno::FAULT.into());
        }
        Ok(answer)
    }

    /// `setrlimit`
    pub fn setrlimit(&mut self, resource: u64, new: u64) -> Answer {
        self.memory.piece(new, 16, Access::Read)?;
        self.prlimit(0, resource, new, 0)
    }

    /// `getrusage`
    pub fn getrusage(&mut self, who: u64, address: u64) -> Answer {
        let mut out = Layout([0; 144]);
        match int(who).cast_signed() {
            // RUSAGE_SELF and RUSAGE_THREAD
            0 | 1 => {
                out.bytes(0, &timeval(self.cpu_used()));
                out.u64(32, self.tree.budget().peak() / 1024);
            }
            // RUSAGE_CHILDREN
            -1 => {}
            _ => return Err(Errno::INVAL.into()),
        }
        self.memory.write(address, &out.0)?;
        Ok(0)
    }

    /// `sysinfo`: memory is what the limit allows.
    pub fn sysinfo(&mut self, address: u64) -> Answer {
        let budget = self.tree.budget();
        let mut out = Layout([0; 112]);
        out.u64(0, self.deadlines.start.elapsed().as_secs());
        out.u64(32, budget.limit());
        out.u64(40, budget.left());
        out.bytes(80, &1u16.to_le_bytes());
        out.u32(104, 1);
        self.memory.write(address, &out.0)?;
        Ok(0)
    }

    /// `sched_getaffinity`: there is one processor.
    pub fn sched_getaffinity(&mut self, length: u64, address: u64) -> Answer {
        if length < 8 || !length.is_multiple_of(8) {
            return Err(Errno::INVAL.into());
        }
        self.memory.write(address, &1u64.to_le_bytes())?;
        Ok(8)
    }

    /// `getcpu`
    pub fn getcpu(&mut self, cpu: u64, node: u64) -> Answer {
        for address in [cpu, node] {
            if address != 0 {
                self.memory.write(address, &[0; 4])?;
            }
        }
        Ok(0)
    }

    /// `getrandom`
    pub fn getrandom(&mut self, address: u64, length: u64, flags: u64) -> Answer {
        if int(flags) & !7 != 0 {
            return Err(Errno::INVAL.into());
        }
        let length = length.min(i32::MAX.unsigned_abs().into());
        let mut done = 0;
        let mut looked = 0;
        while done < length {
            let at = address.checked_add(done).ok_or(Errno::FAULT)?;
            let wanted = usize::try_from(length - done).unwrap_or(usize::MAX);
            let piece = match self.memory.piece(at, wanted, Access::Write) {
                Ok(piece) => piece,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno.into()),
            };
            let part = self.buffer.first(piece.length);
            fill_randomly(part)?;
            piece
                .memory
                .write(piece.offset, part)
                .map_err(|_| Errno::FAULT)?;
            done += part.len() as u64;
            if done - looked > LOOK {
                looked = done;
                self.look().map_err(Stop::End)?;
            }
        }
        Ok(done)
    }

    /// `futex`: the only thread is not waited for, and would wait for ever.
    pub fn futex(&mut self, args: [u64; 6]) -> Answer {
        const PRIVATE_OR_REALTIME: u32 = 0x180;
        let [address, operation, value, time, ..] = args;
        let absolute_realtime = operation & 0x100 != 0;
        match int(operation) & !PRIVATE_OR_REALTIME {
            // FUTEX_WAIT and FUTEX_WAIT_BITSET
            wait @ (0 | 9) => {
                let now = self.memory.read_u32(address)?;
                if now != int(value) {
                    return Err(Errno::AGAIN.into());
                }
                if time == 0 {
                    self.wait_forever()?;
                }
                let clock = if absolute_realtime { 0 } else { 1 };
                let flags = if wait == 9 { 1 } else { 0 };
                self.clock_nanosleep(clock, flags, time, 0)?;
                Err(Errno::TIMEDOUT.into())
            }
            // FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP, FUTEX_WAKE_BITSET
            1 | 3 | 4 | 5 | 10 => {
                self.memory.read_u32(address)?;
                Ok(0)
            }
            _ => Err(Stop::Unsupported),
        }
    }

    /// `setuid` and its like: only to who it is already.
    pub fn set_ids(&mut self, ids: &[u64]) -> Answer {
        let same = |id: &u64| matches!(int(*id), USER | u32::MAX);
        if ids.iter().all(same) {
            Ok(0)
        } else {
            Err(Errno::PERM.into())
        }
    }

    /// `getresuid` and `getresgid`
    pub fn get_three_ids(&mut self, real: u64, effective: u64, saved: u64) -> Answer {
        for address in [real, effective, saved] {
            self.memory.write(address, &USER.to_le_bytes())?;
        }
        Ok(0)
    }

    /// `getgroups`: its own group and no other.
    pub fn getgroups(&mut self, _count: u64) -> Answer {
        Ok(0)
    }

    /// `setpgid`, `setsid`, `getpgid` and `getsid`: it leads its group and session.
    pub fn group(&mut self, number: u64, pid: u64) -> Answer {
        let pid = int(pid);
        match number {
            // setsid of who leads a group
            112 => Err(Errno::PERM.into()),
            _ if pid != 0 && pid != PID => Err(Errno::SRCH.into()),
            // setpgid
            109 => Ok(0),
            _ => Ok(u64::from(PID)),
        }
    }
}
