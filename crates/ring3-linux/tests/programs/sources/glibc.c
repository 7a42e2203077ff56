// What a program of C does: output, memory, sorting, numbers, jumps.
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static jmp_buf place;

static void jump(int depth) {
  if (depth == 0) longjmp(place, 42);
  jump(depth - 1);
}

int main(int argc, char **argv) {
  printf("arguments");
  for (int i = 1; i < argc; i++) printf(" %s", argv[i]);
  printf("; HOME=%s\n", getenv("HOME") ? getenv("HOME") : "-");

  char *block = NULL;
  size_t total = 0;
  for (size_t size = 1; size < 8 << 20; size = size * 3 + 1) {
    block = realloc(block, size);
    memset(block + size / 2, 1, size - size / 2);
    total += block[size - 1];
  }
  free(block);
  printf("realloc %zu\n", total);

  int numbers[1000];
  unsigned seed = 7;
  for (int i = 0; i < 1000; i++) numbers[i] = (seed = seed * 1103515245 + 12345) >> 16 & 0x7fff;
  qsort(numbers, 1000, sizeof *numbers, by_value);
  int sorted = 1;
  for (int i = 1; i < 1000; i++) sorted &= numbers[i - 1] <= numbers[i];
  printf("sorted %d\n", sorted);

  volatile double angle = 0.5;
  volatile long double third = 1.0L / 3;
  printf("sin %.12f sqrt %.12f third %.18Lf\n", sin(angle), sqrt(angle), third * 3);

  int value = setjmp(place);
  if (value == 0) jump(100);
  printf("jumped %d\n", value);

  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0 || time(NULL) < 1700000000) return 3;
  printf("pid %d uid %d\n", getpid(), getuid());
  fflush(stdout);
  fprintf(stderr, "done\n");
  return 7;
}
