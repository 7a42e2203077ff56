//! The system calls that the server may make, and what happens on any other.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction as Filter, SeccompFilter, TargetArch};

use crate::error::Error;

/// What happens on a system call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeccompAction {
    /// There is no list.
    None,
    /// The process is killed.
    Kill,
    /// The call is logged by the kernel, and made.
    Log,
    /// The process gets SIGSYS.
    Trap,
}

/// Files and folders, by descriptor: what a guest's requests turn into.
const FILES: &[i64] = &[
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_newfstatat,
    libc::SYS_open_by_handle_at,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_setxattr,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Acting as the user that a request comes from.
const CREDENTIALS: &[i64] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_prctl,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
];

/// The vhost-user protocol, rings, threads, memory and the C library's own needs.
const RUNTIME: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_unshare,
];

/// Calls that only older ABIs have.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Lines for syslog.
const REMOTE_LOG: &[i64] = &[libc::SYS_sendto];

/// Puts the list into force for this thread and all that it starts. There is no way back.
pub fn install(action: SeccompAction, remote_log: bool) -> Result<(), Error> {
    let otherwise = match action {
        SeccompAction::None => return Ok(()),
        SeccompAction::Kill => Filter::KillProcess,
        SeccompAction::Log => Filter::Log,
        SeccompAction::Trap => Filter::Trap,
    };
    let failed = |error: &dyn std::fmt::Display| Error::Seccomp(error.to_string());
    let remote = if remote_log { REMOTE_LOG } else { &[] };
    let allowed: BTreeMap<i64, Vec<_>> = [FILES, CREDENTIALS, RUNTIME, OLD, remote]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let filter = SeccompFilter::new(allowed, otherwise, Filter::Allow, arch)
        .map_err(|error| failed(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a process that makes a call that is not on the list.
    fn status_after(action: SeccompAction) -> i32 {
        // SAFETY: the child only makes system calls and allocates, which glibc lets a fork of many threads do.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let installed = install(action, false).is_ok();
            // SAFETY: takes nothing.
            unsafe { libc::getppid() };
            // SAFETY: takes a number only.
            unsafe { libc::_exit(if installed { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our own child, and room for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status
    }

    #[test]
    fn a_call_that_is_not_on_the_list_meets_the_action() {
        let signal = |status| libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        assert_eq!(
            signal(status_after(SeccompAction::Kill)),
            Some(libc::SIGSYS)
        );
        assert_eq!(
            signal(status_after(SeccompAction::Trap)),
            Some(libc::SIGSYS)
        );
        for goes_on in [SeccompAction::Log, SeccompAction::None] {
            assert_eq!(libc::WEXITSTATUS(status_after(goes_on)), 7, "{goes_on:?}");
        }
    }
}
