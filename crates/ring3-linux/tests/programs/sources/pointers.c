// Pointers that lead nowhere, in every place where a call takes one. All of it holds on Linux, too.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <asm/prctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { IN = 0, OUT = 1, NULL_MEANS = 2, MAY_DO_LESS = 4, MAY_BE_UNALIGNED = 8 };

/// A call, the place of the pointer among its arguments, and the bytes that it leads to.
struct call {
  const char *name;
  long number;
  int place;
  long size;
  int flags;
  long args[6];
};

#define P(value) ((long)(value))

static int failures;

int main(void) {
  long page = 4096;
  char *pages = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char *none = pages + page, *read_only = pages + 3 * page, *gone = pages + 5 * page;
  mprotect(none, page, PROT_NONE);
  mprotect(read_only, page, PROT_READ);
  munmap(gone, page);

  char good[4096] = "/tmp";
  int file = open("/tmp/pointers", O_CREAT | O_RDWR | O_TRUNC, 0600);
  unlink("/tmp/pointers");
  write(file, good, sizeof good);
  int folder = open("/dev", O_RDONLY | O_DIRECTORY), zero = open("/dev/zero", O_RDONLY), pipes[2];
  pipe(pipes);
  write(pipes[1], good, 10);
  struct iovec wild_part;
  struct timespec now = {0, 0};
  struct timeval at_once = {0, 0};

  struct call calls[] = {
    {"read", SYS_read, 1, 100, OUT | MAY_DO_LESS, {file, 0, 100}},
    {"read of a pipe", SYS_read, 1, 8, OUT | MAY_DO_LESS, {pipes[0], 0, 8}},
    {"read of a device", SYS_read, 1, 100, OUT | MAY_DO_LESS, {zero, 0, 100}},
    {"pread64", SYS_pread64, 1, 100, OUT | MAY_DO_LESS, {file, 0, 100, 0}},
    {"pwrite64", SYS_pwrite64, 1, 100, IN | MAY_DO_LESS, {file, 0, 100, 0}},
    {"write to a pipe", SYS_write, 1, 100, IN | MAY_DO_LESS, {pipes[1], 0, 100}},
    {"write to standard error", SYS_write, 1, 100, IN | MAY_DO_LESS, {2, 0, 100}},
    {"readv", SYS_readv, 1, 16, IN, {file, 0, 1}},
    {"writev", SYS_writev, 1, 16, IN, {file, 0, 1}},
    {"preadv", SYS_preadv, 1, 16, IN, {file, 0, 1, 0}},
    {"pwritev", SYS_pwritev, 1, 16, IN, {file, 0, 1, 0}},
    {"open", SYS_open, 0, 2, IN, {0, O_RDONLY}},
    {"openat", SYS_openat, 1, 2, IN, {AT_FDCWD, 0, O_CREAT | O_RDWR, 0600}},
    {"creat", SYS_creat, 0, 2, IN, {0, 0600}},
    {"stat, path", SYS_stat, 0, 2, IN, {0, P(good + 1000)}},
    {"stat", SYS_stat, 1, sizeof(struct stat), OUT, {P(good), 0}},
    {"lstat", SYS_lstat, 1, sizeof(struct stat), OUT, {P(good), 0}},
    {"fstat", SYS_fstat, 1, sizeof(struct stat), OUT, {file, 0}},
    {"newfstatat", SYS_newfstatat, 2, sizeof(struct stat), OUT, {AT_FDCWD, P(good), 0, 0}},
    {"statx", SYS_statx, 4, sizeof(struct statx), OUT, {AT_FDCWD, P(good), 0, STATX_ALL, 0}},
    {"statx, path", SYS_statx, 1, 2, IN, {AT_FDCWD, 0, 0, STATX_ALL, P(good + 1000)}},
    {"statfs", SYS_statfs, 1, sizeof(struct statfs), OUT, {P(good), 0}},
    {"fstatfs", SYS_fstatfs, 1, sizeof(struct statfs), OUT, {file, 0}},
    {"access", SYS_access, 0, 2, IN, {0, F_OK}},
    {"chdir", SYS_chdir, 0, 2, IN, {0}},
    {"mkdir", SYS_mkdir, 0, 2, IN, {0, 0700}},
    {"rmdir", SYS_rmdir, 0, 2, IN, {0}},
    {"unlink", SYS_unlink, 0, 2, IN, {0}},
    {"rename", SYS_rename, 0, 2, IN, {0, P("/tmp/none")}},
    {"rename, new name", SYS_rename, 1, 2, IN, {P("/tmp"), 0}},
    {"link", SYS_link, 0, 2, IN, {0, P("/tmp/none")}},
    {"symlink", SYS_symlink, 0, 2, IN, {0, P("/tmp/none")}},
    {"symlink, new name", SYS_symlink, 1, 2, IN, {P("none"), 0}},
    {"readlink, path", SYS_readlink, 0, 2, IN, {0, P(good + 1000), 100}},
    {"readlink", SYS_readlink, 1, 4, OUT, {P("/tmp/pointer"), 0, 100}},
    {"chmod", SYS_chmod, 0, 2, IN, {0, 0600}},
    {"truncate", SYS_truncate, 0, 2, IN, {0, 0}},
    {"getcwd", SYS_getcwd, 0, 2, OUT, {0, 100}},
    {"getdents64", SYS_getdents64, 1, 19, OUT, {folder, 0, 1000}},
    {"getdents", SYS_getdents, 1, 18, OUT, {folder, 0, 1000}},
    {"poll", SYS_poll, 0, sizeof(struct pollfd), OUT, {0, 1, 0}},
    {"ppoll", SYS_ppoll, 0, sizeof(struct pollfd), OUT, {0, 1, P(&now), 0, 8}},
    {"select", SYS_select, 1, 8, OUT | NULL_MEANS, {1, 0, 0, 0, P(&at_once)}},
    {"select, time", SYS_select, 4, 16, IN | NULL_MEANS, {0, 0, 0, 0, 0}},
    {"pselect6, time", SYS_pselect6, 4, 16, IN | NULL_MEANS, {0, 0, 0, 0, 0, 0}},
    {"rt_sigaction", SYS_rt_sigaction, 1, 32, IN | NULL_MEANS, {SIGUSR1, 0, 0, 8}},
    {"rt_sigaction, old", SYS_rt_sigaction, 2, 32, OUT | NULL_MEANS, {SIGUSR1, 0, 0, 8}},
    {"rt_sigprocmask", SYS_rt_sigprocmask, 1, 8, IN | NULL_MEANS, {SIG_BLOCK, 0, 0, 8}},
    {"rt_sigprocmask, old", SYS_rt_sigprocmask, 2, 8, OUT | NULL_MEANS, {SIG_BLOCK, 0, 0, 8}},
    {"rt_sigpending", SYS_rt_sigpending, 0, 8, OUT, {0, 8}},
    {"sigaltstack", SYS_sigaltstack, 0, sizeof(stack_t), IN | NULL_MEANS, {0, 0}},
    {"sigaltstack, old", SYS_sigaltstack, 1, sizeof(stack_t), OUT | NULL_MEANS, {0, 0}},
    {"clock_gettime", SYS_clock_gettime, 1, 16, OUT, {CLOCK_MONOTONIC, 0}},
    {"clock_getres", SYS_clock_getres, 1, 16, OUT | NULL_MEANS, {CLOCK_MONOTONIC, 0}},
    {"clock_nanosleep", SYS_clock_nanosleep, 2, 16, IN, {CLOCK_MONOTONIC, 0, 0, 0}},
    {"nanosleep", SYS_nanosleep, 0, 16, IN, {0, 0}},
    {"gettimeofday", SYS_gettimeofday, 0, 16, OUT | NULL_MEANS, {0, 0}},
    {"gettimeofday, zone", SYS_gettimeofday, 1, 8, OUT | NULL_MEANS, {0, 0}},
    {"time", SYS_time, 0, 8, OUT | NULL_MEANS, {0}},
    {"times", SYS_times, 0, sizeof(struct tms), OUT | NULL_MEANS, {0}},
    {"getrusage", SYS_getrusage, 1, sizeof(struct rusage), OUT, {RUSAGE_SELF, 0}},
    {"prlimit64", SYS_prlimit64, 3, 16, OUT | NULL_MEANS, {0, RLIMIT_NOFILE, 0, 0}},
    {"getrlimit", SYS_getrlimit, 1, 16, OUT, {RLIMIT_NOFILE, 0}},
    {"prlimit64, new", SYS_prlimit64, 2, 16, IN | NULL_MEANS, {0, RLIMIT_NOFILE, 0, 0}},
    {"setrlimit", SYS_setrlimit, 1, 16, IN, {RLIMIT_NOFILE, 0}},
    {"uname", SYS_uname, 0, sizeof(struct utsname), OUT, {0}},
    {"sysinfo", SYS_sysinfo, 0, sizeof(struct sysinfo), OUT, {0}},
    {"pipe", SYS_pipe, 0, 8, OUT, {0}},
    {"pipe2", SYS_pipe2, 0, 8, OUT, {0, O_CLOEXEC}},
    {"getrandom", SYS_getrandom, 0, 100, OUT | MAY_DO_LESS, {0, 100, 0}},
    {"getresuid", SYS_getresuid, 1, 4, OUT, {P(good), 0, P(good)}},
    {"sched_getaffinity", SYS_sched_getaffinity, 2, 8, OUT, {0, 128, 0}},
    {"getcpu", SYS_getcpu, 0, 4, OUT | NULL_MEANS, {0, 0, 0}},
    {"arch_prctl", SYS_arch_prctl, 1, 8, OUT, {ARCH_GET_FS, 0}},
    {"prctl, get", SYS_prctl, 1, 16, OUT, {PR_GET_NAME, 0}},
    {"FIONREAD", SYS_ioctl, 2, 4, OUT, {pipes[0], 0x541b, 0}},
    {"FIONBIO", SYS_ioctl, 2, 4, IN, {pipes[0], 0x5421, 0}},
    {"futex", SYS_futex, 0, 4, IN | MAY_BE_UNALIGNED, {0, FUTEX_WAIT, 12345, P(&now)}},
    // The parts of vectors; all places before were their arrays.
    {"readv of a part", SYS_readv, -1, 100, OUT | MAY_DO_LESS, {file, P(&wild_part), 1}},
    {"writev of a part", SYS_writev, -1, 100, IN | MAY_DO_LESS, {file, P(&wild_part), 1}},
  };
  symlink("none", "/tmp/pointer");

  char *wild[] = {
    0, (char *)8, (char *)0xfff,
    // Behind the lower half, in nobody's, in the kernel's.
    (char *)0x7ffffffff000, (char *)0x800000000000, (char *)0x900000000000, (char *)0x4141414141414141,
    (char *)0xffff800000000000, (char *)0xffff800000001000, (char *)0xffffffff81000000, (char *)-4096, (char *)-8, (char *)-1,
    none, none + page - 8, gone, gone + 8,
    // With a byte, and all but one, of what there should be: see below.
    (char *)1, (char *)2,
    read_only, read_only + 8,
  };
  int count = sizeof wild / sizeof *wild;
  int next = dup(file);
  close(next);
  for (struct call *call = calls; call < calls + sizeof calls / sizeof *calls; call++) {
    for (int i = 0; i < count; i++) {
      char *pointer = wild[i];
      if (!pointer && call->flags & NULL_MEANS) continue;
      if (i >= count - 2 && !(call->flags & OUT)) continue;
      int part = pointer == (char *)1 || pointer == (char *)2;
      if (pointer == (char *)1) pointer = none - 1;
      if (pointer == (char *)2) pointer = none - (call->size - 1);
      long args[6];
      memcpy(args, call->args, sizeof args);
      wild_part = (struct iovec){pointer, 100};
      if (call->place >= 0) args[call->place] = P(pointer);
      // The first page ends in a string that does not.
      none[-1] = 'a';
      lseek(file, 0, SEEK_SET), lseek(folder, 0, SEEK_SET);
      long result = syscall(call->number, args[0], args[1], args[2], args[3], args[4], args[5]);
      if (result < 0 && errno == EFAULT) continue;
      if (part && call->flags & MAY_DO_LESS && result >= 0 && result < call->size) continue;
      if (result < 0 && errno == EINVAL && call->flags & MAY_BE_UNALIGNED && P(pointer) & 3) continue;
      printf("%s with %p (%d): %ld (%s)\n", call->name, pointer, i, result, result < 0 ? strerror(errno) : "");
      failures++;
    }
  }
  // Nothing came of it.
  int again = dup(file);
  if (again != next) printf("descriptor %d, not %d\n", again, next), failures++;
  if (access("a", F_OK) == 0 || access("/tmp/none", F_OK) == 0) puts("a file is there"), failures++;
  unlink("/tmp/pointer");
  if (!failures) puts("good");
  return failures != 0;
}
