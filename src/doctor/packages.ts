// How this distribution installs a package.

import { asRoot, type FixCommand } from './model.ts';
import type { Host } from './host.ts';

const INSTALLERS: readonly (readonly [program: string, ...words: string[]])[] = [
  ['apt-get', 'install', '-y'],
  ['dnf', 'install', '-y'],
  ['zypper', 'install', '-y'],
  ['apk', 'add'],
  ['pacman', '-S', '--noconfirm'],
];

/** Names that differ from Debian's. */
const OTHER_NAMES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'qemu-system-x86': {
    dnf: 'qemu-system-x86-core',
    zypper: 'qemu-x86',
    apk: 'qemu-system-x86_64',
    pacman: 'qemu-system-x86',
  },
};

/** The command that installs a package by its Debian name; undefined where no installer is known. */
export function installCommand(host: Host, name: string): FixCommand | undefined {
  const installer = INSTALLERS.find(([program]) => host.program(program) !== undefined);
  return installer && asRoot(...installer, OTHER_NAMES[name]?.[installer[0]] ?? name);
}
