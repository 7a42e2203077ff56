// mmap and its like, files, pipes, polling: prints the first line that is not as it should be.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) \
  do { \
    if (!(what)) { \
      printf("line %d: %s (errno %d)\n", __LINE__, #what, errno); \
      return 1; \
    } \
  } while (0)

static int mappings(void) {
  size_t page = 4096;
  char *at = mmap(NULL, 64 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  for (int i = 0; i < 64; i++) {
    CHECK(at[i * page] == 0);
    at[i * page] = (char)i;
  }
  CHECK(mprotect(at + 8 * page, 8 * page, PROT_READ) == 0);
  CHECK(at[8 * page] == 8 && at[15 * page] == 15);
  CHECK(mprotect(at + 8 * page, 8 * page, PROT_READ | PROT_WRITE) == 0);
  at[9 * page] = 99;
  CHECK(munmap(at + 16 * page, 16 * page) == 0);
  CHECK(at[15 * page] == 15 && at[32 * page] == 32);
  char *again = mmap(at + 16 * page, 16 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  CHECK(again == at + 16 * page && again[0] == 0);
  CHECK(mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno == EEXIST);
  char *moved = mremap(at, 8 * page, 200 * page, MREMAP_MAYMOVE);
  CHECK(moved != MAP_FAILED);
  for (int i = 0; i < 8; i++) CHECK(moved[i * page] == i);
  moved[199 * page] = 5;
  CHECK(mremap(moved, 200 * page, page, 0) == moved && moved[0] == 0);
  CHECK(madvise(moved, page, MADV_DONTNEED) == 0 && moved[0] == 0);
  CHECK(mmap(NULL, (size_t)1 << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
  char *large = mmap(NULL, (size_t)1 << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(large != MAP_FAILED);
  CHECK(mprotect(large + ((size_t)1 << 39), page, PROT_READ | PROT_WRITE) == 0);
  large[(size_t)1 << 39] = 1;
  CHECK(munmap(large, (size_t)1 << 40) == 0);
  char *start = sbrk(0);
  CHECK(sbrk(1 << 20) == start);
  start[(1 << 20) - 1] = 1;
  CHECK(sbrk(-(1 << 20)) != (void *)-1);
  // Code that is made and changed.
  unsigned char *code = mmap(NULL, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(code != MAP_FAILED);
  for (int i = 1; i < 50; i++) {
    memcpy(code, (unsigned char[]){0xb8, (unsigned char)i, 0, 0, 0, 0xc3}, 6);
    CHECK(((int (*)(void))code)() == i);
  }
  return 0;
}

static int files(void) {
  int fd = open("/tmp/f", O_RDWR | O_CREAT | O_EXCL, 0644);
  CHECK(fd == 3);
  CHECK(open("/tmp/f", O_RDWR | O_CREAT | O_EXCL, 0644) == -1 && errno == EEXIST);
  CHECK(write(fd, "hello world", 11) == 11 && lseek(fd, 0, SEEK_CUR) == 11);
  CHECK(pwrite(fd, "W", 1, 6) == 1);
  char buffer[64] = {0};
  CHECK(pread(fd, buffer, 64, 6) == 5 && !strcmp(buffer, "World"));
  struct iovec parts[2] = {{buffer, 3}, {buffer + 10, 4}};
  CHECK(lseek(fd, 0, SEEK_SET) == 0 && readv(fd, parts, 2) == 7 && !memcmp(buffer, "hel", 3));
  CHECK(ftruncate(fd, 1 << 30) == 0 && lseek(fd, 0, SEEK_END) == 1 << 30);
  CHECK(pread(fd, buffer, 4, 1 << 20) == 4 && buffer[0] == 0);
  CHECK(ftruncate(fd, 5) == 0);
  char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(map != MAP_FAILED && !memcmp(map, "hello", 6));
  map[0] = 'j';
  CHECK(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 'h');
  CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == ENODEV);
  struct stat status;
  CHECK(fstat(fd, &status) == 0 && status.st_size == 5 && S_ISREG(status.st_mode) && (status.st_mode & 0777) == 0644);
  CHECK(chmod("/tmp/f", 0600) == 0 && stat("/tmp/f", &status) == 0 && (status.st_mode & 0777) == 0600);
  CHECK(rename("/tmp/f", "/tmp/g") == 0 && access("/tmp/f", F_OK) == -1 && errno == ENOENT);
  CHECK(link("/tmp/g", "/tmp/h") == 0 && stat("/tmp/h", &status) == 0 && status.st_nlink == 2);
  CHECK(unlink("/tmp/g") == 0 && read(fd, buffer, 5) == 0 && pread(fd, buffer, 5, 0) == 5);
  CHECK(close(fd) == 0 && close(fd) == -1 && errno == EBADF);
  CHECK(symlink("h", "/tmp/s") == 0 && lstat("/tmp/s", &status) == 0 && S_ISLNK(status.st_mode));
  CHECK(readlink("/tmp/s", buffer, 64) == 1 && buffer[0] == 'h' && stat("/tmp/s", &status) == 0);
  CHECK(symlink("loop", "/tmp/loop") == 0 && open("/tmp/loop", O_RDONLY) == -1 && errno == ELOOP);
  CHECK(mkdir("/tmp/d", 0755) == 0 && mkdir("/tmp/d", 0755) == -1 && errno == EEXIST);
  CHECK(rename("/tmp/d", "/tmp/d/e") == -1 && errno == EINVAL);
  CHECK(rename("/tmp/h", "/tmp/d/h") == 0 && rmdir("/tmp/d") == -1 && errno == ENOTEMPTY);
  CHECK(chdir("/tmp/d") == 0 && getcwd(buffer, 64) && !strcmp(buffer, "/tmp/d") && access("h", R_OK) == 0);
  CHECK(unlink("h") == 0 && chdir("..") == 0 && rmdir("d") == 0 && chdir("/") == 0);
  for (int i = 0; i < 1000; i++) {
    char name[32];
    sprintf(name, "/tmp/many%d", i);
    CHECK((fd = open(name, O_CREAT | O_WRONLY, 0600)) >= 0 && close(fd) == 0);
  }
  DIR *folder = opendir("/tmp");
  CHECK(folder);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(folder));) count += !strncmp(entry->d_name, "many", 4);
  CHECK(count == 1000);
  rewinddir(folder);
  CHECK(!strcmp(readdir(folder)->d_name, "."));
  closedir(folder);
  fd = open("/dev/zero", O_RDONLY);
  CHECK(fd >= 0 && read(fd, buffer, 64) == 64 && buffer[63] == 0);
  CHECK(write(open("/dev/full", O_WRONLY), "x", 1) == -1 && errno == ENOSPC);
  CHECK(write(open("/dev/null", O_WRONLY), "x", 1) == 1);
  CHECK(unlink("/tmp") == -1 && errno == EISDIR && rmdir("/") == -1);
  return 0;
}

static int pipes(void) {
  int fds[2], other;
  char buffer[64];
  CHECK(pipe2(fds, O_NONBLOCK) == 0 && read(fds[0], buffer, 1) == -1 && errno == EAGAIN);
  CHECK(write(fds[1], "abc", 3) == 3);
  struct pollfd polled[3] = {{fds[0], POLLIN}, {fds[1], POLLOUT}, {77, POLLIN}};
  CHECK(poll(polled, 3, 0) == 3 && polled[0].revents == POLLIN && polled[1].revents == POLLOUT && polled[2].revents == POLLNVAL);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fds[0], &set);
  struct timeval time = {0, 1000};
  CHECK(select(fds[0] + 1, &set, NULL, NULL, &time) == 1 && FD_ISSET(fds[0], &set));
  CHECK((other = dup(fds[1])) >= 0 && dup2(other, 50) == 50 && fcntl(50, F_GETFD) == 0);
  CHECK(fcntl(50, F_DUPFD_CLOEXEC, 60) == 60 && fcntl(60, F_GETFD) == FD_CLOEXEC);
  CHECK(close(fds[1]) == 0 && close(other) == 0 && close(50) == 0 && write(60, "d", 1) == 1 && close(60) == 0);
  CHECK(read(fds[0], buffer, 64) == 4 && !memcmp(buffer, "abcd", 4) && read(fds[0], buffer, 64) == 0);
  struct timespec before, after, nap = {0, 20000000};
  clock_gettime(CLOCK_MONOTONIC, &before);
  CHECK(nanosleep(&nap, NULL) == 0 && poll(NULL, 0, 20) == 0);
  clock_gettime(CLOCK_MONOTONIC, &after);
  long passed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
  CHECK(passed >= 39);
  CHECK(isatty(0) == 0 && errno == ENOTTY);
  return 0;
}

int main(void) {
  int failed = mappings() || files() || pipes();
  if (!failed) puts("good");
  return failed;
}
