// What the addon exports for this folder (crates/node/src/ring3). Private to the package.

import type { Registers, SegmentBases } from './state.ts';

export interface BindingPlatformFacts {
  readonly supportsAddressSpaceIo: boolean;
  readonly cooperativelySchedulesAddressSpaces: boolean;
  readonly detectsCpuPreemption: boolean;
  readonly ownsPageTables: boolean;
  readonly hasGlobalMemoryBarrier: boolean;
  readonly mapUnit: number;
  readonly minUserAddress: bigint;
  readonly maxUserAddress: bigint;
  readonly syscallEntry: 'ring0' | 'ring3';
  readonly outCompletion: 'before-exit' | 'at-next-run';
  readonly seesPageTableEdits: boolean;
  readonly recyclesPageTables: boolean;
}

export interface BindingPlatform {
  facts(): BindingPlatformFacts;
  newMemory(length: bigint): Promise<BindingRing3Memory>;
  memoryOfFile(file: {
    readonly path: string;
    readonly offset: bigint;
    readonly length?: bigint;
    readonly writable: boolean;
  }): Promise<BindingRing3Memory>;
  newAddressSpace(): Promise<BindingAddressSpace>;
  newContext(): BindingContext;
  close(): Promise<void>;
}

export interface BindingRing3Memory {
  readonly length: bigint;
  read(offset: bigint, length: number): Uint8Array;
  write(offset: bigint, bytes: Uint8Array): void;
  close(): Promise<void>;
}

export interface BindingProtection {
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
}

export interface BindingMapping {
  readonly address: bigint;
  readonly offset: bigint;
  readonly length: bigint;
  readonly protection: BindingProtection;
  readonly precommit: boolean;
}

export interface BindingAddressSpace {
  map(memory: BindingRing3Memory, mapping: BindingMapping): Promise<void>;
  unmap(address: bigint, length: bigint): Promise<void>;
  protect(address: bigint, length: bigint, protection: BindingProtection): Promise<void>;
  release(): Promise<void>;
}

export interface BindingRing3Exit {
  readonly reason: 'system-call' | 'fault' | 'bus-error' | 'interrupted' | 'timed-out';
  readonly vector?: number;
  readonly errorCode?: number;
  readonly address?: bigint;
  readonly access?: 'read' | 'write' | 'execute';
  readonly registers: Registers;
}

export interface BindingContext {
  switch(
    space: BindingAddressSpace,
    registers: Registers,
    options: { readonly partial: boolean; readonly timeoutMs?: number },
  ): Promise<BindingRing3Exit>;
  interrupt(): void;
  withdrawInterrupt(): boolean;
  segmentBases(): SegmentBases;
  setSegmentBases(bases: SegmentBases): void;
  extendedState(): Uint8Array;
  setExtendedState(state: Uint8Array): void;
  close(): Promise<void>;
}

export interface BindingSandboxOptions {
  readonly root?: string;
  readonly env: readonly string[];
  readonly cwd: string;
  readonly memory?: bigint;
  readonly cpuTimeMs?: number;
  readonly wallTimeMs?: number;
  readonly outputBytes?: bigint;
  readonly openFiles?: number;
  readonly stack?: bigint;
}

export interface BindingRun {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly input?: Uint8Array;
  readonly inputFd?: number;
  /** -1 for nowhere; absent to collect it. */
  readonly stdoutFd?: number;
  readonly stderrFd?: number;
  readonly traceFd?: number;
  readonly timeoutMs?: number;
  readonly asked: readonly string[];
}

export interface BindingSystemCall {
  readonly question: number;
  readonly number: number;
  readonly name?: string;
  readonly args: readonly bigint[];
  readonly path?: Uint8Array;
}

export interface BindingDecision {
  readonly deny?: number;
  readonly answer?: bigint;
}

export interface BindingOutcome {
  readonly exitCode?: number;
  readonly signal?: number;
  readonly timedOut: boolean;
  readonly interrupted: boolean;
  readonly limit?: 'memory' | 'cpu-time' | 'wall-time' | 'output';
  readonly crash?: { readonly vector: number; readonly address?: bigint; readonly rip: bigint };
  readonly cpuTimeMs: number;
  readonly wallTimeMs: number;
  readonly peakMemory: number;
  readonly systemCalls: number;
  readonly unsupported: Readonly<Record<string, number>>;
  readonly wantedProcesses: boolean;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

export interface BindingSandbox {
  run(run: BindingRun, ask: (call: BindingSystemCall) => void): Promise<BindingOutcome>;
  answer(question: number, decision: BindingDecision): void;
  interrupt(): void;
  reset(): Promise<void>;
  close(): Promise<void>;
}

export interface Ring3Binding {
  readonly BindingSandbox: {
    create(platform: BindingPlatform, options: BindingSandboxOptions): Promise<BindingSandbox>;
  };
  /** Names of all system calls of x86-64. */
  systemCallNames(): string[];
  /** The number of the error of this name, as `EACCES`. */
  systemErrorNumber(name: string): number | null;
  ring3Platforms(): string[];
  readonly BindingPlatform: {
    open(name: string, options: { readonly devicePath?: string; readonly vcpus?: number }): Promise<BindingPlatform>;
  };
}
