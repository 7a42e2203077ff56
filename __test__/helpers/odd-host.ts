// A host whose KVM cannot run programs in ring 3: what the kernel answers to one call is replaced.

/** `ioctl`, `KVM_CHECK_EXTENSION` and `KVM_CAP_SYNC_REGS`, by their places in `seccomp_data`. */
const REFUSED: readonly (readonly [offset: number, value: number])[] = [
  [0, 16],
  [24, 0xae03],
  [32, 74],
];

/** The operations of a filter (seccomp(2)) that answers that call with 0, "not there", and lets all others be. */
function filter(): string {
  const operation = (code: number, jumpIfNot: number, k: number): string =>
    `pack('SCCL', ${code}, 0, ${jumpIfNot}, ${k})`;
  const tests = REFUSED.flatMap(([offset, value], index) => [
    operation(0x20, 0, offset),
    operation(0x15, 2 * (REFUSED.length - index) - 1, value),
  ]);
  return [...tests, operation(0x06, 0, 0x0005_0000), operation(0x06, 0, 0x7fff_0000)].join(' . ');
}

/** The words of a command that runs another one on a host where KVM does not exchange registers with a run. */
export function whereRing3IsUnsupported(command: readonly string[]): [file: string, ...args: string[]] {
  // prctl(PR_SET_NO_NEW_PRIVS), prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)
  const script = [
    `my $filter = ${filter()};`,
    `my $program = pack('Sx6P', length($filter) / 8, $filter);`,
    'syscall(157, 38, 1, 0, 0, 0) == 0 and syscall(157, 22, 2, $program) == 0 or die "no filter: $!";',
    'exec @ARGV or die "no program: $!";',
  ].join(' ');
  return ['perl', '-e', script, ...command];
}
