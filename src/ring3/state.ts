// A program's registers, as bigints.

/** The general registers. */
export interface Registers {
  readonly rax: bigint;
  readonly rbx: bigint;
  readonly rcx: bigint;
  readonly rdx: bigint;
  readonly rsi: bigint;
  readonly rdi: bigint;
  readonly rbp: bigint;
  readonly rsp: bigint;
  readonly r8: bigint;
  readonly r9: bigint;
  readonly r10: bigint;
  readonly r11: bigint;
  readonly r12: bigint;
  readonly r13: bigint;
  readonly r14: bigint;
  readonly r15: bigint;
  readonly rip: bigint;
  /** Bits that a program may not set are ignored on the way in. */
  readonly rflags: bigint;
}

/** Bases of the segments that programs use for thread-local storage. */
export interface SegmentBases {
  readonly fs: bigint;
  readonly gs: bigint;
}
