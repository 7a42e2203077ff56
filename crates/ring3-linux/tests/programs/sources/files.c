// Files: what takes long, what counts, and what moves. Every check holds on Linux, too.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// Seconds; it took more, each step having been as long as the path before it.
#define PATIENCE 2

static int failures;
#define CHECK(what) do { if (!(what)) { printf("line %d: %s (%s)\n", __LINE__, #what, strerror(errno)); failures++; } } while (0)

static int is(const char *mode, const char *name) { return !strcmp(mode, name); }

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

// A chain of links, each of which goes down and up as often as a path can.
static void dots(void) {
  static char target[4200];
  char name[16];
  mkdir("/tmp/d", 0755), chdir("/tmp/d");
  for (int depth = 0; depth < 600; depth++) CHECK(!mkdir("d", 0755) && !chdir("d"));
  mkdir("a", 0755);
  for (int link = 38; link >= 0; link--) {
    char *end = target;
    while (end - target < 4070) end = stpcpy(end, "a/../");
    if (link < 38) sprintf(end, "l%d", link + 1);
    else strcpy(end, "a");
    sprintf(name, "l%d", link);
    CHECK(!symlink(target, name));
  }
  struct stat status;
  double start = now();
  CHECK(!stat("l0", &status) && S_ISDIR(status.st_mode));
  CHECK(now() - start < PATIENCE);
}

// Many names, far down.
static void names(void) {
  char name[16];
  mkdir("/tmp/big", 0755), chdir("/tmp/big");
  for (int file = 0; file < 5000; file++) {
    sprintf(name, "%d", file);
    CHECK(!mknod(name, S_IFREG | 0600, 0) || !close(open(name, O_CREAT | O_WRONLY, 0600)));
  }
  chdir("/tmp"), mkdir("d", 0755), chdir("d");
  for (int depth = 0; depth < 600; depth++) CHECK(!mkdir("d", 0755) && !chdir("d"));
  CHECK(!rename("/tmp/big", "big"));
  int folder = open("big", O_RDONLY | O_DIRECTORY);
  double start = now();
  for (int round = 0; round < 8; round++) lseek(folder, 1L << 60, SEEK_SET), lseek(folder, 0, SEEK_SET);
  CHECK(rmdir("big") < 0 && errno == ENOTEMPTY);
  CHECK(now() - start < PATIENCE);
}

// Folders that are open, or that the program is in, and that move or go.
static void moves(void) {
  char path[100];
  struct stat status, other;
  mkdir("/tmp/m", 0755), chdir("/tmp/m");
  mkdir("a", 0755), mkdir("a/in", 0755), mkdir("c", 0755);
  close(open("a/in/old", O_CREAT | O_WRONLY, 0600));
  int folder = open("a/in", O_RDONLY | O_DIRECTORY), handle = open("a", O_PATH | O_DIRECTORY);
  CHECK(!fstat(folder, &status));
  chdir("a/in");
  CHECK(!rename("/tmp/m/a", "/tmp/m/c/b"));
  CHECK(!mkdir("/tmp/m/a", 0755) && !mkdir("/tmp/m/a/in", 0755));
  CHECK(getcwd(path, sizeof path) && !strcmp(path, "/tmp/m/c/b/in"));
  CHECK(!access("old", F_OK) && !faccessat(folder, "old", F_OK, 0) && !faccessat(handle, "in/old", F_OK, 0));
  CHECK(!fstat(folder, &other) && other.st_ino == status.st_ino);
  CHECK(!stat("/tmp/m/a/in", &other) && other.st_ino != status.st_ino);
  CHECK(!faccessat(folder, "../../../a/in", F_OK, 0));
  CHECK(!unlinkat(folder, "old", 0) && !rmdir("/tmp/m/c/b/in"));
  CHECK(!mkdir("/tmp/m/c/b/in", 0755));
  CHECK(open("x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK(openat(folder, "x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK(!getcwd(path, sizeof path) && errno == ENOENT);
  CHECK(access("/tmp/m/c/b/in/x", F_OK) < 0);
  // A file in place of a folder is none.
  chdir("/tmp/m"), mkdir("f", 0755);
  int file = open("f", O_PATH);
  rmdir("f"), close(open("f", O_CREAT | O_WRONLY, 0600));
  CHECK(faccessat(file, "x", F_OK, 0) < 0 && errno == ENOENT);
  CHECK(!rename("c/b", "a/in") || errno == ENOTEMPTY);
  // Paths alone.
  file = open("/tmp/m", O_PATH);
  char entries[100];
  CHECK(getdents64(file, entries, sizeof entries) < 0 && errno == EBADF);
  CHECK(open("f", O_PATH | O_DIRECTORY) < 0 && errno == ENOTDIR);
  CHECK(!fchdir(file) && fchdir(AT_FDCWD) < 0 && errno == EBADF);
}

// Modes and times of folders that were there before.
static void folders(void) {
  struct stat status, entry;
  CHECK(!stat("/there", &status));
  int device = open("/tmp/x", O_CREAT | O_WRONLY, 0600);
  CHECK(!fstat(device, &entry) && entry.st_dev != status.st_dev);
  ino_t inode = status.st_ino;
  time_t before = status.st_mtime;
  CHECK(!mkdir("/there/new", 0755));
  CHECK(!stat("/there", &status) && status.st_mtime > before && status.st_ino == inode);
  CHECK(!chmod("/there", 0711) && !stat("/there", &status) && (status.st_mode & 07777) == 0711);
  int folder = open("/there", O_RDONLY | O_DIRECTORY);
  struct timespec times[2] = {{1000, 5}, {2000, 7}};
  CHECK(!fchmod(folder, 0750) && !futimens(folder, times));
  CHECK(!fstat(folder, &status) && (status.st_mode & 07777) == 0750 && status.st_mtime == 2000);
  DIR *list = fdopendir(folder);
  int found = 0;
  for (struct dirent *name; (name = readdir(list));) {
    if (name->d_name[0] == '.') continue;
    found++;
    CHECK(!fstatat(folder, name->d_name, &entry, AT_SYMLINK_NOFOLLOW) && entry.st_ino == name->d_ino);
  }
  CHECK(found == 3);
  // A file's number and the beginning of its bytes stay.
  CHECK(!stat("/there/file", &status) && status.st_uid == getuid());
  CHECK(!truncate("/there/file", 3));
  CHECK(!stat("/there/file", &entry) && entry.st_ino == status.st_ino && entry.st_size == 3);
  char bytes[10];
  CHECK(read(open("/there/file", O_RDONLY), bytes, 10) == 3 && !memcmp(bytes, "abc", 3));
  // One that is open as it was before goes with what takes its place only by its name.
  CHECK(!stat("/there/sub", &status) && !chdir("/there/sub"));
  CHECK(!rmdir("/there/sub") && !mkdir("/there/sub", 0755));
  CHECK(open("x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (is(mode, "dots")) dots();
  else if (is(mode, "names")) names();
  else if (is(mode, "moves")) moves();
  else if (is(mode, "folders")) folders();
  else if (is(mode, "links")) {
    static char target[4090];
    char name[64];
    memset(target, 'a', 4089);
    int count = 0;
    do sprintf(name, "/tmp/%d", count++);
    while (!symlink(target, name));
    printf("%d\n", count - 1);
    return errno != ENOSPC;
  } else if (is(mode, "mapped")) {
    int count = 0;
    for (int file; (file = open("/there/file", O_RDONLY)) >= 0; count++) {
      CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) != MAP_FAILED);
      close(file);
    }
    CHECK(errno == EMFILE);
    if (!failures) printf("%d\n", count);
    return failures;
  } else return 2;
  if (!failures) puts("good");
  return failures;
}
