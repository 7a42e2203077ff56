// User options → MachineSpec. Nothing on disk is looked at, so it is synchronous and the same everywhere.

import { resolve } from 'node:path';
import { MicroVMError } from '../errors.ts';
import type { MachineSpec, RootfsSpec, VsockSpec } from './machine-spec.ts';
import { parseMemorySize } from './memory-size.ts';
import { mountSpecs } from './mount-options.ts';
import type { KernelFiles, MicroVMOptions, RootfsFolder, VhostVsockOptions } from './options.ts';
import { checkedForwardSpec } from './port-options.ts';
import { invalidOptions } from './problems.ts';
import { type CheckedOptions, checkOptions } from './schema.ts';

const BOOT_TIMEOUT_MS = { kvm: 30_000, tcg: 120_000 };

const VHOST_VSOCK = '/dev/vhost-vsock';

/** The kernel keeps 2048 bytes on x86, the closing NUL included; the words that microvm adds take less than 512 of them. */
const MAX_COMMAND_LINE_BYTES = 1535;

/** Checks all options at once and fills in the defaults. Throws `ERR_INVALID_OPTIONS` with every problem. */
export function normalize(options: MicroVMOptions = {}): MachineSpec {
  const checked = checkOptions(options);
  if (isProblems(checked)) throw invalidOptions(checked);
  const { accelerator, cpus, memory, hugePages, kernel, rootfs, env, hostname, bootTimeout, vsock, kvmDevice } =
    checked;
  const commandLine = checked.cmdline.trim();
  if (commandLine.length > MAX_COMMAND_LINE_BYTES) throw commandLineTooLong(commandLine.length);
  return {
    accelerator,
    cpus,
    memoryBytes: Number(parseMemorySize(memory)),
    hugePages,
    kernel: kernelSpec(kernel),
    rootfs: rootfsSpec(rootfs),
    mounts: mountSpecs(checked.mounts),
    commandLine,
    env: { ...env },
    hostname,
    name: checked.name,
    bootTimeoutMs: bootTimeout === undefined ? BOOT_TIMEOUT_MS : { kvm: bootTimeout, tcg: bootTimeout },
    vsock: vsockSpec(vsock),
    ports: (checked.ports ?? []).map(checkedForwardSpec),
    kvmDevice: resolve(kvmDevice),
  };
}

function isProblems(checked: ReturnType<typeof checkOptions>): checked is Exclude<typeof checked, CheckedOptions> {
  return Array.isArray(checked);
}

function kernelSpec(kernel: string | KernelFiles | undefined): MachineSpec['kernel'] {
  if (kernel === undefined) return undefined;
  const { image, modules } = typeof kernel === 'string' ? { image: kernel } : kernel;
  return { image: resolve(image), modules: modules === undefined ? undefined : resolve(modules) };
}

function rootfsSpec(rootfs: string | RootfsFolder): RootfsSpec {
  if (typeof rootfs !== 'string') {
    return { kind: 'share', path: resolve(rootfs.dir), writable: rootfs.writable ?? false };
  }
  if (rootfs === 'host') return { kind: 'share', path: '/', writable: false };
  if (rootfs === 'default') return { kind: 'default' };
  if (rootfs === 'none') return { kind: 'none' };
  return { kind: 'path', path: resolve(rootfs) };
}

function vsockSpec(vsock: 'unix' | 'vhost' | VhostVsockOptions): VsockSpec {
  if (vsock === 'unix') return { type: 'unix' };
  const { cid, port, device = VHOST_VSOCK }: Partial<VhostVsockOptions> = vsock === 'vhost' ? {} : vsock;
  return { type: 'vhost', cid, port, device: resolve(device) };
}

function commandLineTooLong(bytes: number): MicroVMError {
  return new MicroVMError(
    'ERR_COMMAND_LINE_TOO_LONG',
    `cmdline has ${bytes} bytes; ${MAX_COMMAND_LINE_BYTES} fit beside the words that microvm adds`,
    { hint: 'The kernel reads 2048 bytes of command line. Give settings to programs by env instead.' },
  );
}
