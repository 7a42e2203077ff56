// Which QEMU the accelerator tcg runs, and how old it may be.

/** The oldest major version that has all that is asked of it. */
export const OLDEST_QEMU = 6;

/** The program: `$MICROVM_QEMU`, or the one in the PATH. */
export function qemuProgram(env: Readonly<Record<string, string | undefined>>): string {
  return env['MICROVM_QEMU'] || 'qemu-system-x86_64';
}
