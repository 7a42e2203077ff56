// Which kernel modules the guest needs before it can dial the host, and in which order they load.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
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

/** The files of the modules to load, `more` of them too, each after those it depends on. Built-in ones need none. */
export async function neededModules(
  folder: string,
  transport: VirtioTransport,
  more: readonly string[] = [],
): Promise<string[]> {
  const [lines, builtIn] = await Promise.all([readDependencies(folder), readBuiltIn(folder)]);
  const required = [...REQUIRED[transport], ...more];
  const missing = required.filter((name) => !lines.has(name) && !builtIn.has(name));
  if (missing.length > 0) {
    throw new MicroVMError('ERR_KERNEL_MODULES', `The modules in ${folder} lack ${missing.join(' and ')}`, {
      hint: 'The guest needs them to reach the host. Use a kernel that has them, such as the one that set-up fetches.',
    });
  }
  const visited = new Set<string>();
  const ordered: string[] = [];
  const add = (name: string): void => {
    const line = lines.get(name);
    // Not listed: built in. Visited: loaded before, or a circle, which has to end somewhere.
    if (line === undefined || visited.has(name)) return;
    visited.add(name);
    const { file, dependsOn } = parseLine(folder, line);
    dependsOn.forEach(add);
    ordered.push(join(folder, file));
  };
  for (const name of [...required, ...OPTIONAL]) add(name);
  return ordered;
}

/** The lines of modules.dep by the names of their modules. There are thousands, of which a handful is looked into. */
async function readDependencies(folder: string): Promise<Map<string, string>> {
  const text = await readList(folder, 'modules.dep');
  return new Map(text.split('\n').map((line) => [moduleName(line.slice(0, line.indexOf(':'))), line]));
}

/** `path: path path…`, all of them in the folder. */
function parseLine(folder: string, line: string): { file: string; dependsOn: string[] } {
  const [file = '', list, ...more] = line.split(':');
  const paths = (list ?? '').split(' ').filter((path) => path !== '');
  if (list !== undefined && more.length === 0 && [file, ...paths].every(isInside)) {
    return { file, dependsOn: paths.map(moduleName) };
  }
  const message = `${join(folder, 'modules.dep')} has a malformed line: ${line.slice(0, 200)}`;
  throw new MicroVMError('ERR_KERNEL_MODULES', message, { hint: 'Let depmod write it again.' });
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

/** `a/virtio-rng.ko.xz` and `virtio_rng` are one module: the kernel takes - and _ for the same. */
function moduleName(path: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const end = name.indexOf('.ko');
  return (end === -1 ? name : name.slice(0, end)).replaceAll('-', '_');
}
