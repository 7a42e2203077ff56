// The work that file daemons are compared by, run in the guest: prints how many milliseconds it took.
//
//   work io    read|write sequential|random BLOCK COUNT JOBS   on the file `data`, past the guest's cache
//   work files create|stat|unlink|churn COUNT JOBS             in the current folder
//
// Static, so that starting it reads no libraries through what is measured.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char content[512] = {1};

static void check(int good, const char *what) {
  if (!good) err(1, "%s", what);
}

static void io(char **words, int job) {
  int writes = strcmp(words[0], "write") == 0;
  int random = strcmp(words[1], "random") == 0;
  size_t block = strtoul(words[2], NULL, 10);
  long count = strtol(words[3], NULL, 10);
  int file = open("data", O_RDWR | O_DIRECT);
  struct stat found;
  check(file >= 0 && fstat(file, &found) == 0, "data");
  uint64_t blocks = (uint64_t)found.st_size / block, state = 88172645463325252u + (uint64_t)job;
  void *buffer;
  check(posix_memalign(&buffer, 4096, block) == 0, "memory");
  memset(buffer, 2, block);
  for (long done = 0; done < count; done++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    off_t at = (off_t)((random ? state % blocks : (uint64_t)done % blocks) * block);
    ssize_t moved = writes ? pwrite(file, buffer, block, at) : pread(file, buffer, block, at);
    check(moved == (ssize_t)block, words[0]);
  }
}

static void one_file(const char *what, const char *name) {
  struct stat found;
  if (strcmp(what, "create") == 0) {
    int file = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    check(file >= 0 && write(file, content, sizeof content) == sizeof content && close(file) == 0, name);
  } else {
    check((strcmp(what, "stat") == 0 ? stat(name, &found) : unlink(name)) == 0, name);
  }
}

static void files(char **words, int job) {
  long count = strtol(words[1], NULL, 10);
  int churn = strcmp(words[0], "churn") == 0;
  for (int pass = 0; pass <= churn; pass++) {
    for (long index = 0; index < count; index++) {
      char name[64];
      snprintf(name, sizeof name, "%d-%ld", job, index);
      one_file(churn ? (pass ? "unlink" : "create") : words[0], name);
    }
  }
}

int main(int count, char **words) {
  if (count < 5) errx(2, "work io|files … JOBS");
  void (*work)(char **, int) = strcmp(words[1], "io") == 0 ? io : files;
  long jobs = strtol(words[count - 1], NULL, 10);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int job = 0; job < jobs; job++) {
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
      work(words + 2, job);
      _exit(0);
    }
  }
  for (int status; wait(&status) > 0;) {
    if (status != 0) return 1;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%ld\n", (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000);
}
