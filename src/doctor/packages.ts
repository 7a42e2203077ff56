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

/** What has to be run before: containers and cloud images come without lists of packages. */
const FIRST: Readonly<Record<string, FixCommand>> = { 'apt-get': asRoot('apt-get', 'update') };

/** The commands that install a package by its Debian name; none where no installer is known. */
export function installCommands(host: Host, name: string): readonly FixCommand[] {
  const installer = INSTALLERS.find(([program]) => host.program(program) !== undefined);
  if (installer === undefined) return [];
  const [program] = installer;
  const first = FIRST[program];
  return [...(first === undefined ? [] : [first]), asRoot(...installer, OTHER_NAMES[name]?.[program] ?? name)];
}

/** Whether this is Red Hat's Enterprise Linux or a rebuild of it, whose QEMU leaves much out. */
export function isEnterpriseLinux(host: Host): boolean {
  const release = host.readText('/etc/os-release');
  // Fedora is neither, nor names them.
  return release.ok && /^ID(?:_LIKE)?=.*\b(?:rhel|centos)\b/m.test(release.value);
}
