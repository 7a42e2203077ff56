// The initramfs: a root folder, the root file system that was asked for, then our own archive with the agent as /init and the kernel
// modules. The kernel unpacks archives in order, so ours has the last word. It is built once and then taken from the cache.

import { createHash } from 'node:crypto';
import { readFile, stat, utimes } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cacheFolder } from '../cache/folder.ts';
import { holdEntry } from '../cache/hold.ts';
import { publishFile } from '../cache/publish.ts';
import type { RootfsSpec } from '../config/machine-spec.ts';
import { MicroVMError, errnoOf } from '../errors.ts';
import { ArchiveFile } from './archive-file.ts';
import { CpioWriter, MODE, type Sink } from './cpio.ts';
import type { GuestKernel } from './kernel.ts';
import { neededModules, type VirtioTransport } from './modules.ts';
import { openRootfs, type RootfsSource } from './rootfs.ts';

export interface InitramfsRequest {
  readonly kernel: GuestKernel;
  readonly rootfs: RootfsSpec;
  /** How the virtio devices are plugged: it decides which kernel modules go in. kvm: mmio, tcg: pci. */
  readonly transport: VirtioTransport;
  /** Names of modules that the machine needs besides, such as `virtiofs`. */
  readonly modules?: readonly string[] | undefined;
  readonly memoryBytes: number;
  /** Path of the agent's executable. */
  readonly agent: string;
  readonly signal?: AbortSignal | undefined;
}

/** A built initramfs in the cache, kept from `microvm cache clean` until it is released. */
export interface Initramfs {
  readonly path: string;
  readonly bytes: number;
  /** False when it had to be built. */
  readonly cached: boolean;
  /** Call it when the machine has read the file. */
  release(): Promise<void>;
}

/** Part of the name of each archive: a new value leaves the old ones unused. */
const LAYOUT_VERSION = 2;
const MIB = 2 ** 20;
/** What a kernel needs before it has unpacked anything. */
const KERNEL_BYTES = 48 * MIB;

/** Builds the initramfs, or takes it from the cache. Everything it is made of is checked either way. */
export async function buildInitramfs(request: InitramfsRequest): Promise<Initramfs> {
  const { signal } = request;
  try {
    signal?.throwIfAborted();
    return await findOrBuild(request);
  } catch (error) {
    if (!signal?.aborted) throw error;
    throw new MicroVMError('ERR_ABORTED', 'The making of the initramfs was aborted', { cause: signal.reason });
  }
}

async function findOrBuild(request: InitramfsRequest): Promise<Initramfs> {
  const { kernel, rootfs, transport, memoryBytes, agent, signal } = request;
  const [source, modules] = await Promise.all([
    openRootfs(rootfs, signal),
    kernel.modules === undefined ? [] : neededModules(kernel.modules, transport, request.modules),
  ]);
  const files = await Promise.all([agentIdentity(agent), ...modules.map(moduleIdentity)]);
  const path = join(cacheFolder(), 'initramfs', `${hash([LAYOUT_VERSION, source.identity, files])}.cpio`);
  const maxBytes = largestInitramfs(memoryBytes);
  if (source.leastBytes > maxBytes) throw tooLarge(source.leastBytes, memoryBytes);

  const hold = await holdEntry(path);
  try {
    const cachedBytes = await useCached(path);
    if (cachedBytes === undefined) {
      await publishFile(path, (temporary) => write(temporary, source, { agent, modules, memoryBytes, signal }));
    }
    const bytes = cachedBytes ?? (await stat(path)).size;
    if (bytes > maxBytes) throw tooLarge(bytes, memoryBytes);
    return { path, bytes, cached: cachedBytes !== undefined, release: () => hold.release() };
  } catch (error) {
    await hold.release();
    throw error;
  }
}

interface OwnFiles {
  readonly agent: string;
  readonly modules: readonly string[];
  readonly memoryBytes: number;
  readonly signal: AbortSignal | undefined;
}

async function write(temporary: string, source: RootfsSource, own: OwnFiles): Promise<void> {
  const maxBytes = largestInitramfs(own.memoryBytes);
  const file = await ArchiveFile.create(temporary, maxBytes, () => tooLarge(maxBytes + 1, own.memoryBytes));
  const sink: Sink = (bytes) => file.write(bytes);
  try {
    await writeRoot(sink);
    await source.write(sink, own.signal);
    await writeOwn(sink, own);
    await file.finish();
  } catch (error) {
    await file.abandon();
    throw error;
  }
}

/** The kernel's own root folder can be written to by everybody. */
async function writeRoot(sink: Sink): Promise<void> {
  const writer = new CpioWriter(sink);
  await writer.add({ name: '.', mode: MODE.folder | 0o755 });
  await writer.end();
}

async function writeOwn(sink: Sink, { agent, modules }: OwnFiles): Promise<void> {
  const writer = new CpioWriter(sink);
  await writer.add({ name: 'dev', mode: MODE.folder | 0o755 });
  // PID 1's output and /dev/null, for the time before devtmpfs is mounted.
  await writer.add({ name: 'dev/console', mode: MODE.characterDevice | 0o600, device: { major: 5, minor: 1 } });
  await writer.add({ name: 'dev/null', mode: MODE.characterDevice | 0o666, device: { major: 1, minor: 3 } });
  await writer.add({ name: '.microvm', mode: MODE.folder | 0o755 });
  await writer.add({ name: '.microvm/modules', mode: MODE.folder | 0o755 });
  for (const [index, module] of modules.entries()) {
    const name = `.microvm/modules/${String(index).padStart(3, '0')}-${basename(module)}`;
    await writer.add({ name, mode: MODE.file | 0o644 }, await readFile(module));
  }
  // An /init of the user's may be one file with another of his programs. As a file of another type ours takes its place
  // instead of its content; then the agent replaces the link in the same way.
  await writer.add({ name: 'init', mode: MODE.symlink | 0o777 }, Buffer.from('.microvm'));
  await writer.add({ name: 'init', mode: MODE.file | 0o755 }, await readFile(agent));
  await writer.end();
}

/** The bytes of a cached archive, which is marked as used now; undefined when there is none. */
async function useCached(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) return undefined;
  const now = new Date();
  await utimes(path, now, now).catch(() => {});
  return found.size;
}

async function agentIdentity(path: string): Promise<readonly unknown[]> {
  const found = await fileIdentity(path).catch((cause: unknown) => {
    throw new MicroVMError('ERR_AGENT_MISSING', `The guest agent ${path} cannot be read (${errnoOf(cause)})`, {
      cause,
      hint: 'Install the package again; in a checkout, run `npm run build:native`.',
    });
  });
  return found;
}

async function moduleIdentity(path: string): Promise<readonly unknown[]> {
  return fileIdentity(path).catch((cause: unknown) => {
    const message = `The kernel module ${path}, which modules.dep lists, cannot be read (${errnoOf(cause)})`;
    throw new MicroVMError('ERR_KERNEL_MODULES', message, { cause });
  });
}

async function fileIdentity(path: string): Promise<readonly unknown[]> {
  const { size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [path, String(size), String(mtimeNs), String(ctimeNs)];
}

function hash(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 32);
}

/** The archive, its unpacked content, and as much again free (a root tmpfs takes half of memory) must fit beside the kernel. */
function largestInitramfs(memoryBytes: number): number {
  return Math.max(0, Math.floor((memoryBytes - KERNEL_BYTES) / 3));
}

function tooLarge(bytes: number, memoryBytes: number): MicroVMError {
  const mib = (value: number): string => `${Math.ceil(value / MIB)} MiB`;
  const needed = mib(bytes * 3 + KERNEL_BYTES);
  const message = `An initramfs of at least ${mib(bytes)} does not fit in ${mib(memoryBytes)} of memory`;
  return new MicroVMError('ERR_INITRAMFS_TOO_LARGE', message, {
    hint: `Set memory to '${needed}' or more, or make rootfs smaller.`,
  });
}
