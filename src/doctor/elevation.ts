// How a command gets root's rights on a host.

import type { Host } from './host.ts';
import type { FixCommand } from './model.ts';
import { quote } from './quote.ts';

/** What gives root's rights: nothing for root, or a program. */
export type Elevation = 'none' | 'sudo' | 'pkexec' | 'su';

const PROGRAMS = ['sudo', 'pkexec', 'su'] as const;

/** What there is on a host; undefined where an ordinary user has no way to root's rights. */
export function elevationOf({ identity, program }: Pick<Host, 'identity' | 'program'>): Elevation | undefined {
  return identity.uid === 0 ? 'none' : PROGRAMS.find((name) => program(name) !== undefined);
}

/** A command as it is run. */
export function elevate({ argv, sudo }: FixCommand, elevation: Elevation, host: Pick<Host, 'program'>): string[] {
  if (!sudo || elevation === 'none') return [...argv];
  // `su` takes a line for a shell.
  if (elevation === 'su') return ['su', '-c', shellLine(argv)];
  // pkexec looks along the caller's PATH, which need not have root's programs.
  const [file = '', ...args] = argv;
  return [elevation, elevation === 'pkexec' ? (host.program(file) ?? file) : file, ...args];
}

/** A command as one would type it on a host, with what gives root's rights before it where it takes them. */
export function typedLine(command: FixCommand, host: Pick<Host, 'identity' | 'program'>): string {
  // Where nothing is found, the reader knows best: sudo is what most will read as "as root".
  return shellLine(elevate(command, elevationOf(host) ?? 'sudo', host));
}

/** A command for a POSIX shell. */
export function shellLine(argv: readonly string[]): string {
  return argv.map(quote).join(' ');
}
