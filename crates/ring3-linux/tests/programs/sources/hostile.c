// Programs that use up whatever they can.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is(const char *mode, const char *name) { return !strcmp(mode, name); }

static char big[1 << 20];

static int refused(void) {
  write(1, "refused\n", 8);
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (is(mode, "spin")) for (;;) __asm__ volatile("");
  if (is(mode, "calls")) for (;;) syscall(SYS_getppid);
  if (is(mode, "sleep")) for (;;) sleep(1000000);
  if (is(mode, "pause")) for (;;) pause();
  if (is(mode, "poll")) for (;;) poll(NULL, 0, -1);
  if (is(mode, "futex")) {
    int word = 1;
    for (;;) syscall(SYS_futex, &word, FUTEX_WAIT, 1, NULL);
  }
  if (is(mode, "read-pipe") || is(mode, "fill-pipe")) {
    int fds[2];
    pipe(fds);
    for (;;) {
      if (is(mode, "read-pipe")) read(fds[0], big, 10);
      else write(fds[1], big, sizeof big);
    }
  }
  if (is(mode, "malloc")) {
    while (1) {
      char *block = malloc(1 << 24);
      if (!block) return refused();
      return 5;
    }
  }
  if (is(mode, "touch")) {
    for (;;) {
      char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (block == MAP_FAILED) return 5;
      memset(block, 1, 1 << 20);
    }
  }
  if (is(mode, "maps")) {
    // Neighbours differ, so that none is a part of another.
    for (int i = 0;; i++) {
      if (mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return refused();
    }
  }
  if (is(mode, "sparse")) {
    // One page for each page table.
    char *all = mmap(NULL, (size_t)1 << 45, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return 5;
    for (size_t at = 0; at < (size_t)1 << 45; at += 1 << 21) all[at] = 1;
    return 6;
  }
  if (is(mode, "file")) {
    int fd = open("/tmp/f", O_CREAT | O_WRONLY, 0600);
    while (write(fd, big, sizeof big) > 0) {}
    return errno == ENOSPC ? refused() : 5;
  }
  if (is(mode, "files") || is(mode, "folders")) {
    for (int i = 0;; i++) {
      char name[32];
      sprintf(name, "/tmp/%d", i);
      int result = is(mode, "files") ? open(name, O_CREAT | O_WRONLY, 0600) : mkdir(name, 0700);
      if (result < 0) return errno == ENOSPC ? refused() : 5;
      if (is(mode, "files")) close(result);
    }
  }
  if (is(mode, "pipes")) {
    int fds[2];
    while (pipe(fds) == 0) {
      while (0) {}
    }
    return errno == ENFILE || errno == EMFILE ? refused() : 5;
  }
  if (is(mode, "break")) {
    while (sbrk(1 << 20) != (void *)-1) {}
    return refused();
  }
  if (is(mode, "output")) {
    memset(big, 'x', sizeof big);
    for (int i = 0;; i++) write(1 + i % 2, big, 3000);
  }
  if (is(mode, "descriptors")) {
    int count = 0;
    while (open("/dev/null", O_RDONLY) >= 0) count++;
    if (errno != EMFILE) return 5;
    printf("%d\n", count);
    return 0;
  }
  if (is(mode, "forks")) {
    // struct clone_args, all of which is 0 but for the signal at its end.
    long clone3[8] = {0, 0, 0, 0, 17};
    for (int i = 0; i < 1000; i++) {
      if (syscall(SYS_fork) != -1 || errno != ENOSYS) return 5;
      if (syscall(SYS_vfork) != -1 || errno != ENOSYS) return 6;
      if (syscall(SYS_clone, 17, 0, 0, 0, 0) != -1 || errno != ENOSYS) return 7;
      if (syscall(SYS_clone3, clone3, sizeof clone3) != -1 || errno != ENOSYS) return 8;
    }
    // And a thread.
    if (syscall(SYS_clone, 0x10f00, big, 0, 0, 0) != -1 || errno != ENOSYS) return 9;
    return fork() < 0 ? refused() : 10;
  }
  if (is(mode, "secret")) {
    // Leaves something behind in memory, on the stack and in files.
    static char secret[] = "a secret of the first program";
    char *heap = malloc(1 << 20);
    for (int i = 0; i < 1 << 20; i += 32) memcpy(heap + i, secret, 29);
    char stack[65536];
    for (int i = 0; i < 65536; i += 32) memcpy(stack + i, secret, 29);
    int fd = open("/tmp/secret", O_CREAT | O_WRONLY, 0600);
    write(fd, stack, 65536);
    memset(big, 's', sizeof big);
    return big[argc] == 's' ? 0 : 1;
  }
  if (is(mode, "look")) {
    // Everything that a new program is given is as it should be.
    for (size_t i = 0; i < sizeof big; i++) if (big[i]) return 5;
    for (int round = 0; round < 8; round++) {
      char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      for (int i = 0; i < 1 << 20; i++) if (block[i]) return 6;
    }
    volatile char *stack = (char *)&mode - 200000;
    for (int i = 0; i < 190000; i++) if (stack[i]) return 7;
    if (access("/tmp/secret", F_OK) == 0) return 8;
    return 0;
  }
  return 2;
}
