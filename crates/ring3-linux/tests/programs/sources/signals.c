// What becomes of a program that goes wrong, or that catches what goes wrong.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int depth_reached;

__attribute__((noinline)) static int recurse(int depth) {
  volatile char block[4096];
  block[0] = (char)depth;
  depth_reached = depth;
  return recurse(depth + 1) + block[0];
}

static sigjmp_buf place;
static volatile sig_atomic_t seen;
static volatile unsigned long address;

static void handler(int signal, siginfo_t *info, void *context) {
  seen = signal;
  address = (unsigned long)info->si_addr;
  volatile double clobber = 1.5;
  for (int i = 0; i < 100; i++) clobber *= 1.25;
  if (signal == SIGSEGV || signal == SIGFPE || signal == SIGILL || signal == SIGBUS) siglongjmp(place, 1);
}

static void install(int signal, int flags) {
  struct sigaction action = {0};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  sigaction(signal, &action, NULL);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  volatile int zero = 0;
  if (!strcmp(mode, "abort")) abort();
  if (!strcmp(mode, "segv")) return *(volatile int *)0x1234;
  if (!strcmp(mode, "write-code")) *(volatile char *)(void *)main = 1;
  if (!strcmp(mode, "run-data")) ((void (*)(void))(void *)&seen)();
  if (!strcmp(mode, "ill")) __builtin_trap();
  if (!strcmp(mode, "fpe")) return argc * 7 / zero;
  if (!strcmp(mode, "trap")) __asm__ volatile("int3");
  if (!strcmp(mode, "overflow")) return recurse(0);
  if (!strcmp(mode, "pipe")) {
    int fds[2];
    if (pipe(fds)) return 9;
    close(fds[0]);
    write(fds[1], "x", 1);
    return 9;
  }
  if (!strcmp(mode, "term")) {
    kill(getpid(), SIGTERM);
    return 9;
  }
  if (strcmp(mode, "handle")) return 2;

  double before = 3.25;
  volatile double kept = before * 2;
  install(SIGUSR1, 0);
  raise(SIGUSR1);
  printf("usr1 %d kept %d\n", seen == SIGUSR1, kept == 6.5);

  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, &old);
  install(SIGUSR2, 0);
  seen = 0;
  raise(SIGUSR2);
  int blocked = seen == 0;
  sigprocmask(SIG_SETMASK, &old, NULL);
  printf("blocked %d then %d\n", blocked, seen == SIGUSR2);

  install(SIGSEGV, SA_NODEFER);
  if (!sigsetjmp(place, 1)) *(volatile char *)0xdead000 = 1;
  printf("segv %d at %lx\n", seen == SIGSEGV, address);
  install(SIGFPE, 0);
  if (!sigsetjmp(place, 1)) zero = argc * 7 / zero;
  printf("fpe %d\n", seen == SIGFPE);
  install(SIGILL, 0);
  if (!sigsetjmp(place, 1)) __asm__ volatile("ud2");
  printf("ill %d\n", seen == SIGILL);

  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, NULL);
  install(SIGSEGV, SA_ONSTACK);
  if (!sigsetjmp(place, 1)) recurse(0);
  printf("overflow %d deep %d\n", seen == SIGSEGV, depth_reached > 1000);
  signal(SIGPIPE, SIG_IGN);
  int fds[2];
  pipe(fds);
  close(fds[0]);
  int result = write(fds[1], "x", 1);
  printf("epipe %d\n", result == -1 && errno == EPIPE);
  return 0;
}
