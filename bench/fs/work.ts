// The work that daemons are compared by: commands for the guest, each of which prints how many milliseconds it took.

export interface Work {
  readonly title: string;
  /** A line for the guest's shell, in a folder of the daemon's that has the file `data`. */
  readonly line: string;
}

/** Bytes of the file that is read and written. The host keeps it in memory. */
export const DATA_BYTES: number = 64 * 1024 * 1024;
/** Where the guest finds the program of `work.c` and the archive, in memory of its own. */
export const TOOL = '/tmp/work';
export const ARCHIVE = '/tmp/tree.tar';
/** Jobs at once, where several queues are compared. */
const JOBS = 4;

/** Milliseconds of a command, by the guest's clock. */
function timed(command: string): string {
  return `a=$(date +%s%N); ${command}; b=$(date +%s%N); echo $(((b - a) / 1000000))`;
}

/** Names and attributes that the guest knows are forgotten before. */
function files(what: string): string {
  return `mkdir -p small && cd small && sync && echo 2 > /proc/sys/vm/drop_caches && ${TOOL} files ${what} 5000 1`;
}

/** For ours and upstream's. In this order: each finds what the one before left. */
export const WORK: readonly Work[] = [
  { title: 'sequential reads of 1 MiB, 512', line: `${TOOL} io read sequential 1048576 512 1` },
  { title: 'sequential writes of 1 MiB, 512', line: `${TOOL} io write sequential 1048576 512 1` },
  { title: 'random reads of 4 KiB, 4096', line: `${TOOL} io read random 4096 4096 1` },
  { title: 'random writes of 4 KiB, 4096', line: `${TOOL} io write random 4096 4096 1` },
  { title: '5000 files of 512 bytes created', line: files('create') },
  { title: 'their attributes asked for', line: files('stat') },
  { title: 'and removed', line: files('unlink') },
  { title: 'tar x of this source tree', line: `mkdir tree && ${timed(`tar -C tree -xf ${ARCHIVE}`)}` },
  { title: 'rm -r of it', line: timed('rm -r tree') },
];

/** For numbers of request queues: several jobs at once. */
export const PARALLEL_WORK: readonly Work[] = [
  { title: `random reads of 4 KiB, 512 in each of ${JOBS} jobs`, line: `${TOOL} io read random 4096 512 ${JOBS}` },
  { title: `random writes of 4 KiB, 512 in each of ${JOBS} jobs`, line: `${TOOL} io write random 4096 512 ${JOBS}` },
  {
    title: `200 files created and removed in each of ${JOBS} jobs`,
    line: `mkdir -p churn && cd churn && ${TOOL} files churn 200 ${JOBS}`,
  },
];
