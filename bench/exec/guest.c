/*
 * What runs in the guest as the reference of what the library does there, without anything of the library's.
 *
 *   guest fork COUNT FILE [ARGUMENT...]   fork, exec and wait of a program, so many times: the nanoseconds of each, a line each
 *   guest write BYTES BLOCK PORT          zeros to a vsock port of the host, in blocks; to standard output where it is 0
 *   guest stdin PORT FILE [ARGUMENT...]   becomes a program whose standard input is a vsock port of the host
 *   guest stdout PORT FILE [ARGUMENT...]  runs a program and passes its standard output on from a pipe to a vsock port of the host
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int dial(const char *port) {
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = atoi(port)};
  int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (stream < 0) fail("socket");
  if (connect(stream, (struct sockaddr *)&host, sizeof host) != 0) fail("connect");
  return stream;
}

/* Its standard output is `output`. */
static pid_t start(char **words, int output) {
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    if (output != STDOUT_FILENO) dup2(output, STDOUT_FILENO);
    execv(words[0], words);
    _exit(127);
  }
  return child;
}

static void await_end(pid_t child, const char *name) {
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "%s ended with status %d\n", name, status);
    exit(1);
  }
}

static void run(char **words) {
  await_end(start(words, STDOUT_FILENO), words[0]);
}

static void time_forks(long count, char **words) {
  for (long done = 0; done < count; done += 1) {
    long long begun = now();
    run(words);
    printf("%lld\n", now() - begun);
  }
}

static void write_all(int to, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t written = write(to, bytes, count);
    if (written < 0 && errno != EINTR) fail("write");
    if (written > 0) bytes += written, count -= written;
  }
}

static void write_zeros(long long bytes, size_t block, int to) {
  char *zeros = calloc(1, block);
  if (zeros == NULL) fail("calloc");
  for (; bytes > 0; bytes -= block) write_all(to, zeros, bytes < (long long)block ? (size_t)bytes : block);
}

static void pump(char **words, int to) {
  static char piece[64 * 1024];
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
  pid_t child = start(words, ends[1]);
  close(ends[1]);
  for (;;) {
    ssize_t count = read(ends[0], piece, sizeof piece);
    if (count < 0 && errno != EINTR) fail("read");
    if (count == 0) break;
    if (count > 0) write_all(to, piece, count);
  }
  await_end(child, words[0]);
}

int main(int count, char **words) {
  const char *task = count > 3 ? words[1] : "";
  if (strcmp(task, "fork") == 0) {
    time_forks(atol(words[2]), words + 3);
  } else if (strcmp(task, "write") == 0 && count == 5) {
    int to = strcmp(words[4], "0") == 0 ? STDOUT_FILENO : dial(words[4]);
    write_zeros(atoll(words[2]), strtoul(words[3], NULL, 10), to);
  } else if (strcmp(task, "stdin") == 0) {
    if (dup2(dial(words[2]), STDIN_FILENO) < 0) fail("dup2");
    execvp(words[3], words + 3);
    fail(words[3]);
  } else if (strcmp(task, "stdout") == 0) {
    pump(words + 3, dial(words[2]));
  } else {
    fprintf(stderr, "guest fork|write|stdin|stdout ...\n");
    return 2;
  }
  return 0;
}
