// Which kernel modules the guest needs before it can dial the host, and in which order they load.

import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MicroVMError, errnoOf } from '../errors.ts';

/** Without these the guest cannot reach its devices. */
const REQUIRED = {
  mmio: ['virtio_mmio', 'vmw_vsock_virtio_transport'],
  pci: ['virtio_pci', 'vmw_vsock_virtio_transport'],
} as const;
/** Worth having where the kernel has them. */
const OPTIONAL = ['virtio_rng'];

/** How virtio devices are plugged into the machine. */
export type VirtioTransport = keyof typeof REQUIRED;

/** The files of the modules to load, each after those it depends on. Built-in ones need none. */
export async function neededModules(folder: string, transport: VirtioTransport): Promise<string[]> {
  const [dependencies, builtIn] = await Promise.all([readDependencies(folder), readBuiltIn(folder)]);
  const ordered = new Set<string>();
  const add = (name: string): void => {
    const entry = dependencies.get(name);
    // Not listed: built in, which was checked for those that are wanted. A set makes a circle of dependencies end.
    if (!entry || visited.has(name)) return;
    visited.add(name);
    entry.dependsOn.forEach(add);
    ordered.add(join(folder, entry.file));
  };
  const visited = new Set<string>();

  const missing = REQUIRED[transport].filter((name) => !dependencies.has(name) && !builtIn.has(name));
  if (missing.length > 0) {
    throw new MicroVMError('ERR_KERNEL_MODULES', `The modules in ${folder} lack ${missing.join(' and ')}`, {
      hint: 'The guest needs them to reach the host. Use a kernel that has them, such as the one that set-up fetches.',
    });
  }
  for (const name of [...REQUIRED[transport], ...OPTIONAL]) add(name);
  return [...ordered];
}

interface ModuleEntry {
  /** Path in the folder. */
  readonly file: string;
  /** Names of modules. */
  readonly dependsOn: readonly string[];
}

async function readDependencies(folder: string): Promise<Map<string, ModuleEntry>> {
  const text = await readList(folder, 'modules.dep');
  const entries = new Map<string, ModuleEntry>();
  for (const line of text.split('\n').filter((line) => line.trim() !== '')) {
    const [file = '', list, ...more] = line.split(':');
    const dependsOn = (list ?? '').split(' ').filter((path) => path !== '');
    if (list === undefined || more.length > 0 || [file, ...dependsOn].some((path) => !isInside(path))) {
      throw new MicroVMError(
        'ERR_KERNEL_MODULES',
        `${join(folder, 'modules.dep')} has a malformed line: ${line.slice(0, 200)}`,
        {
          hint: 'Let depmod write it again.',
        },
      );
    }
    entries.set(moduleName(file), { file, dependsOn: dependsOn.map(moduleName) });
  }
  return entries;
}

async function readBuiltIn(folder: string): Promise<Set<string>> {
  const text = await readList(folder, 'modules.builtin').catch(() => '');
  return new Set(text.split('\n').map((line) => moduleName(line.trim())));
}

async function readList(folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new MicroVMError('ERR_KERNEL_MODULES', `Cannot read ${path} (${errnoOf(cause)})`, { cause });
  }
}

function isInside(path: string): boolean {
  return path !== '' && !path.startsWith('/') && !path.split('/').includes('..');
}

/** `virtio-rng.ko.xz` and `virtio_rng` are one module: the kernel takes - and _ for the same. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(?:\.(?:gz|xz|zst))?$/, '')
    .replaceAll('-', '_');
}
