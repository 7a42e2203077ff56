// How a machine ended, with what only its console tells.

import type { MachineExit } from '../accelerators/accelerator.ts';

/** The first line of a panic: the kernel prints it whatever its log level is. */
const PANIC = /^(?:\[[^\]\n]*\] ?)?Kernel panic - not syncing: (.+)$/gm;
/** Ends that are as they should be: nobody has to look at a console for them. */
const ORDERLY: ReadonlySet<MachineExit['reason']> = new Set(['power-off', 'stopped']);

/**
 * A panic is a reset to the machine, as the kernel command line asks for one (`panic=-1`): that it was one is read from the
 * console. So a guest can pretend to have panicked, and one that has closed or flooded its console has only reset.
 */
export function describeExit(exit: MachineExit, consoleTail: string): MachineExit {
  if (ORDERLY.has(exit.reason)) return exit;
  const panic = exit.reason === 'reset' ? [...consoleTail.matchAll(PANIC)].at(-1)?.[1]?.trim() : undefined;
  return panic === undefined ? { ...exit, consoleTail } : { reason: 'panic', detail: panic, consoleTail };
}

/** Whether the console has something to say about it. */
export function isOrderly({ reason }: MachineExit): boolean {
  return ORDERLY.has(reason);
}
