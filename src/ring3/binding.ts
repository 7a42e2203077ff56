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

export interface Ring3Binding {
  ring3Platforms(): string[];
  readonly BindingPlatform: {
    open(name: string, options: { readonly devicePath?: string; readonly vcpus?: number }): Promise<BindingPlatform>;
  };
}
