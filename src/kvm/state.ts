// A vCPU's registers and other state. Names are those of the kernel's structures (linux/kvm.h), in camelCase; 64-bit
// fields are bigints, smaller ones numbers, and flags of one bit are 0 or 1 as the kernel has them.

/** General registers, instruction pointer and flags (`kvm_regs`). */
export interface Regs {
  rax: bigint;
  rbx: bigint;
  rcx: bigint;
  rdx: bigint;
  rsi: bigint;
  rdi: bigint;
  rsp: bigint;
  rbp: bigint;
  r8: bigint;
  r9: bigint;
  r10: bigint;
  r11: bigint;
  r12: bigint;
  r13: bigint;
  r14: bigint;
  r15: bigint;
  /** Instruction pointer. */
  rip: bigint;
  /** Flags; bit 1 is always set. */
  rflags: bigint;
}

/** A segment register with its hidden part (`kvm_segment`). */
export interface Segment {
  base: bigint;
  /** Last valid offset, in bytes. */
  limit: number;
  selector: number;
  type: number;
  present: number;
  /** Descriptor privilege level, 0 to 3. */
  dpl: number;
  /** 32-bit (1) or 16-bit (0) code or stack. */
  db: number;
  /** Code or data (1), or system (0). */
  s: number;
  /** 64-bit code. */
  l: number;
  /** The descriptor's limit counts pages of 4 KiB. */
  g: number;
  avl: number;
  unusable: number;
}

/** Where a descriptor table lies (`kvm_dtable`). */
export interface DescriptorTable {
  base: bigint;
  /** Last valid offset, in bytes. */
  limit: number;
}

/** Segment, control and descriptor table registers (`kvm_sregs`). */
export interface Sregs {
  cs: Segment;
  ds: Segment;
  es: Segment;
  fs: Segment;
  gs: Segment;
  ss: Segment;
  tr: Segment;
  ldt: Segment;
  gdt: DescriptorTable;
  idt: DescriptorTable;
  cr0: bigint;
  cr2: bigint;
  cr3: bigint;
  cr4: bigint;
  cr8: bigint;
  efer: bigint;
  apicBase: bigint;
  /** Pending external interrupts: 4 words of 64 vectors. */
  interruptBitmap: bigint[];
}

/** x87 and SSE registers (`kvm_fpu`). */
export interface Fpu {
  /** ST0 to ST7, 16 bytes each. */
  fpr: Uint8Array;
  fcw: number;
  fsw: number;
  ftwx: number;
  lastOpcode: number;
  lastIp: bigint;
  lastDp: bigint;
  /** XMM0 to XMM15, 16 bytes each. */
  xmm: Uint8Array;
  mxcsr: number;
}

/** Debug registers (`kvm_debugregs`). */
export interface DebugRegs {
  /** DR0 to DR3. */
  db: bigint[];
  dr6: bigint;
  dr7: bigint;
  flags: bigint;
}

/** Exceptions, interrupts, NMIs and SMIs that are pending or under way (`kvm_vcpu_events`). */
export interface VcpuEvents {
  exception: { injected: number; nr: number; hasErrorCode: number; pending: number; errorCode: number };
  interrupt: { injected: number; nr: number; soft: number; shadow: number };
  nmi: { injected: number; pending: number; masked: number };
  sipiVector: number;
  /** Which of the optional parts count: `KVM_VCPUEVENT_VALID_` bits. */
  flags: number;
  smi: { smm: number; pending: number; smmInsideNmi: number; latchedInit: number };
  tripleFault: { pending: number };
  exceptionHasPayload: number;
  exceptionPayload: bigint;
}

/** A model-specific register. */
export interface Msr {
  index: number;
  data: bigint;
}

/** An answer of the CPUID instruction (`kvm_cpuid_entry2`). */
export interface CpuidEntry {
  /** EAX of the question. */
  function: number;
  /** ECX of the question, where `flags` has bit 0. */
  index: number;
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** An extended control register; number 0 is XCR0. */
export interface Xcr {
  xcr: number;
  value: bigint;
}

/** Whether a vCPU runs, is halted, or waits for its start. */
export type MpState = keyof typeof MP_STATES;

/** The kernel's numbers (`KVM_MP_STATE_`). */
export const MP_STATES = {
  runnable: 0,
  uninitialized: 1,
  'init-received': 2,
  halted: 3,
  'sipi-received': 4,
  'ap-reset-hold': 9,
} as const;
