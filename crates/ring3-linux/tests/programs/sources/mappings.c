// Changes its own mappings at random and keeps account of what has to be where; with no argument it
// tells what is there. Without a C library, whose own memory would be in the way. What it expects
// holds on Linux, too.
#include <stdint.h>

static long call(long n, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return n;
}
enum { READ, WRITE, MMAP = 9, MPROTECT, MUNMAP, SIGACTION = 13, MREMAP = 25, MADVISE = 28, EXIT = 60 };

#define PAGE 4096
#define PAGES 12
#define BEHIND 40
typedef struct { _Alignas(PAGE) uint8_t bytes[PAGES * PAGE]; } Pages;
const Pages constant = {{1, [PAGE] = 2, [2 * PAGE] = 3, [11 * PAGE] = 12}};
Pages data = {{101, [PAGE] = 102, [5 * PAGE] = 106, [11 * PAGE] = 112}};
Pages zeros;
extern uint8_t end[];

// Of pages that are not expected to be there only that is known.
static struct { uint8_t there, prot, value, image, first; } model[3][PAGES + BEHIND] = {{{1}}};
static uint8_t *windows[3] = {(uint8_t *)1};
static int lengths[3] = {PAGES, PAGES, PAGES + BEHIND};
static uint64_t state = 1;
static int spared = 1;

// A fault goes on behind the instruction, with 0 for an answer.
int can_read(volatile uint8_t *at);
int can_write(volatile uint8_t *at, uint8_t value);
__asm__("can_read: mov (%rdi), %al; mov $1, %eax; ret; can_write: mov %sil, (%rdi); mov $1, %eax; ret; failed: xor %eax, %eax; ret");
extern char failed[];
static void handler(int signal, void *info, uint64_t *context) { context[21] = (uint64_t)failed; }
__attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax; syscall"); }

static unsigned random_below(unsigned most) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (state >> 33) % most;
}

static void tell(void) {
  static uint8_t line[4] = {1};
  for (int window = 0; window < 3; window++) {
    for (int page = 0; page < lengths[window]; page++) {
      volatile uint8_t *at = windows[window] + page * PAGE;
      int readable = can_read(at);
      uint32_t sum = 0;
      for (int byte = 0; readable && byte < PAGE; byte += 16) sum = sum * 31 + at[byte];
      line[0] = '0' + readable + 2 * (readable && can_write(at, at[0]));
      line[1] = 'a' + sum % 16, line[2] = 'a' + sum / 16 % 16, line[3] = '\n';
      call(WRITE, 1, (long)line, 4, 0, 0, 0);
    }
  }
}

#define FAIL(code) call(EXIT, code, 0, 0, 0, 0, 0)

static void check(int window, int page) {
  uint8_t *at = windows[window] + page * PAGE;
  int there = model[window][page].there, prot = model[window][page].prot;
  if (can_read(at) != (there && prot)) FAIL(2);
  if (there && prot && *at != model[window][page].value) FAIL(3);
  if (can_write(at, there ? model[window][page].value : 0) != (there && (prot & 2) != 0)) FAIL(4);
}

static void change(void) {
  static const uint8_t prots[4] = {0, 1, 3, 3};
  // Pages that cannot be written stay now and then, so that a reset keeps the others, too.
  int window = spared + random_below(3 - spared);
  int from = random_below(lengths[window]), to = from + 1 + random_below(random_below(3) ? 3 : lengths[window] - from);
  if (to > lengths[window]) to = lengths[window];
  uint8_t *at = windows[window] + from * PAGE;
  long length = (to - from) * PAGE, result = 0;
  int prot = prots[random_below(4)], all = 1;
  for (int page = from; page < to; page++) all &= model[window][page].there;
  switch (random_below(7)) {
  case 0:
  case 1:
    if (call(MMAP, (long)at, length, prot, 0x32, -1, 0) != (long)at) FAIL(5);
    for (int page = from; page < to; page++) model[window][page].there = 1, model[window][page].prot = prot, model[window][page].value = model[window][page].image = 0;
    break;
  case 2:
    if (call(MUNMAP, (long)at, length, 0, 0, 0, 0)) FAIL(6);
    for (int page = from; page < to; page++) model[window][page].there = 0;
    break;
  case 3:
    if (!all) break;
    if (call(MPROTECT, (long)at, length, prot, 0, 0, 0)) FAIL(7);
    for (int page = from; page < to; page++) model[window][page].prot = prot;
    break;
  case 4:
    if (!all) break;
    if (call(MADVISE, (long)at, length, 4, 0, 0, 0)) FAIL(8);
    for (int page = from; page < to; page++) model[window][page].value = model[window][page].image ? model[window][page].first : 0;
    break;
  default:
    for (int page = to - 1; page >= from; page--) {
      check(window, page);
      if (!model[window][page].there || !(model[window][page].prot & 2)) continue;
      model[window][page].value = random_below(256);
      windows[window][page * PAGE] = model[window][page].value;
    }
  }
}

__attribute__((used)) static void begin(long *stack) {
  static struct { void (*handler)(int, void *, uint64_t *); uint64_t flags; void (*restorer)(void); uint64_t mask; } action = {handler, 0x04000004, restorer, 0};
  call(SIGACTION, 11, (long)&action, 0, 8, 0, 0);
  windows[0] = (uint8_t *)&constant, windows[1] = data.bytes;
  windows[2] = (uint8_t *)(((uintptr_t)end + PAGE - 1) & -PAGE) - PAGES * PAGE;
  if (stack[0] < 2) {
    tell();
    FAIL(0);
  }
  for (const char *digit = (const char *)stack[2]; *digit; digit++) state = state * 10 + *digit;
  spared = random_below(4) > 0;
  for (int window = 0; window < 3; window++) {
    for (int page = 0; page < PAGES; page++) {
      model[window][page].there = model[window][page].image = 1;
      model[window][page].prot = window ? 3 : 1;
      model[window][page].value = model[window][page].first = windows[window][page * PAGE];
    }
  }
  for (int round = random_below(60); round >= 0; round--) change();
  for (int window = 0; window < 3; window++) {
    for (int page = 0; page < lengths[window]; page++) check(window, page);
  }
  FAIL(0);
}
__attribute__((naked)) void _start(void) { __asm__("mov %rsp, %rdi; and $-16, %rsp; call begin"); }
