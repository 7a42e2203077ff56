// One daemon a share: started by the addon, so that it dies with this process, and confined by itself.

import type { BindingChild } from '../binding.ts';
import { MicroVMError } from '../errors.ts';
import { describeEnd, readWords } from '../host/helper-process.ts';
import { waitAtMost } from '../host/wait-at-most.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding, virtiofsdPath } from '../native.ts';
import type { Share } from './share.ts';

const SIGTERM = 15;
/** Milliseconds in which a daemon ends when it is told to; then it is killed. */
const STOP_MS = 5_000;
/** What the daemon logs when it listens. */
const LISTENS = 'Waiting for vhost-user socket connection';
/** How it begins its hint where the host refuses the namespaces of its sandbox. */
const REFUSED = 'This user may not create the namespaces of the sandbox';

/** A daemon that listens. */
export interface ShareDaemon {
  /** What begins messages about it. */
  readonly name: string;
  /** Resolves when it has ended: with why, where it did not say that its monitor has gone. Never rejects. */
  readonly ended: Promise<string | undefined>;
  /** Ends it; resolves when it and its files are gone. */
  stop(): Promise<void>;
  stopSync(): void;
}

/** What is told of a daemon, and to whom it belongs. */
export interface DaemonOwner {
  /** What begins messages about it. */
  readonly name: string;
  /** What may be done where the sandbox is refused, besides allowing it. */
  readonly otherwise: string;
  /** Ends it while it starts. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Starts a share's daemon; resolves when it listens at `socket`.
 *
 * @throws {MicroVMError} `ERR_MOUNT_FAILED` with its words where it does not get that far, `ERR_VIRTIOFSD_MISSING`,
 *   `ERR_SPAWN_FAILED`; the reason of `signal` when that is aborted
 */
export async function startShareDaemon(
  share: Share,
  socket: string,
  tellsTag: boolean,
  signal?: AbortSignal,
): Promise<ShareDaemon> {
  const args = [...shareArguments(share, socket), ...(tellsTag ? [`--tag=${share.tag}`] : [])];
  const name = `The daemon that serves ${share.source} at ${share.target}`;
  const otherwise =
    share.target === '/' ? 'pack the root folder: give it as text' : "set the mount's option sandbox to 'none'";
  return startDaemon(args, { name, otherwise, signal });
}

/** Starts a daemon with these arguments. */
export async function startDaemon(args: readonly string[], owner: DaemonOwner): Promise<ShareDaemon> {
  const { name, signal } = owner;
  signal?.throwIfAborted();
  const child = spawn(args);
  let listens = (): void => {};
  const listening = new Promise<'listens'>((resolve) => {
    listens = () => resolve('listens');
  });
  let seen = '';
  const words = readWords(child.takeStderr(), (text) => {
    if (seen.includes(LISTENS)) return;
    seen += text;
    if (seen.includes(LISTENS)) listens();
  });
  let gone = false;
  let stopped = false;
  const ended = child.wait().then(async (status) => {
    gone = true;
    const why = describeEnd(status, messages(await words.atEnd()));
    return stopped || status.code === 0 ? undefined : `${name} ended with ${why}`;
  });
  const stopSync = (): void => {
    stopped = true;
    child.kill(SIGTERM);
  };
  const daemon = {
    name,
    ended,
    stopSync,
    async stop() {
      stopSync();
      if (await waitAtMost(ended, STOP_MS)) return;
      // One that was stopped, or waits for a disk. All of its processes are in its group.
      if (!gone) killGroup(child.pid);
      await waitAtMost(ended, STOP_MS);
    },
  };
  const aborted = aborting(signal);
  const first = await Promise.race([listening, ended, aborted.promise]);
  aborted.release();
  if (first === 'listens') return daemon;
  if (first === 'aborted') {
    await daemon.stop();
    signal?.throwIfAborted();
  }
  throw notStarted((await ended) ?? `${name} ended before it listened`, owner);
}

function spawn(args: readonly string[]): BindingChild {
  const program = virtiofsdPath();
  try {
    const env = { PATH: process.env['PATH'] ?? '' };
    // It ends by SIGTERM, and removes its files then.
    return loadBinding().spawnHelper({ program, args, env, fds: [], captureStderr: true, endSignal: SIGTERM });
  } catch (error) {
    throw fromNative(error);
  }
}

function aborting(signal: AbortSignal | undefined): { promise: Promise<'aborted'>; release: () => void } {
  let abort = (): void => {};
  const promise = new Promise<'aborted'>((resolve) => {
    abort = () => resolve('aborted');
  });
  signal?.addEventListener('abort', abort, { once: true });
  return { promise, release: () => signal?.removeEventListener('abort', abort) };
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

/** The daemon's options for a share. */
export function shareArguments(share: Omit<Share, 'tag' | 'word' | 'target'>, socket: string): string[] {
  const ids = idArguments(share);
  return [
    ['--shared-dir', share.source],
    ['--socket-path', socket],
    ['--sandbox', share.sandbox],
    ['--cache', share.cache],
    ['--thread-pool-size', String(share.threads)],
    ['--request-queues', String(share.requestQueues)],
    share.readonly ? ['--readonly'] : [],
    share.writeback ? ['--writeback'] : [],
    share.xattr ? ['--xattr'] : [],
    share.posixAcl ? ['--posix-acl'] : [],
    share.announceSubmounts ? [] : ['--no-announce-submounts'],
    ids,
  ].flat();
}

/** An ordinary user's daemon can make files of that user only, so that is who root in the guest is. */
function idArguments(
  share: Pick<Share, 'translateUid' | 'translateGid' | 'posixAcl' | 'sandbox' | 'source'>,
): string[] {
  const [user, group] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  if (share.posixAcl) return user === 0 ? [] : namespaceOf(share, user, group);
  const own = (id: number): string[] => (user === 0 ? [] : [`map:0:${id}:1`]);
  return [
    ...(share.translateUid ?? own(user)).flatMap((rule) => ['--translate-uid', rule]),
    ...(share.translateGid ?? own(group)).flatMap((rule) => ['--translate-gid', rule]),
  ];
}

/** The kernel translates the ids in access control lists too, where they are those of a namespace. */
function namespaceOf({ sandbox, source }: Pick<Share, 'sandbox' | 'source'>, user: number, group: number): string[] {
  if (sandbox === 'none') {
    throw new MicroVMError(
      'ERR_NOT_SUPPORTED',
      `Access control lists of ${source} take root or the sandbox 'namespace', in which this user is root`,
      { hint: 'Leave the option sandbox away, or posixAcl.' },
    );
  }
  return ['--uid-map', `:0:${user}:1:`, '--gid-map', `:0:${group}:1:`];
}

/** The errors in a log, without their times and places. */
function messages(log: string): string {
  return log
    .split('\n')
    .filter((line) => !/ (?:WARN|INFO|DEBUG|TRACE) /.test(line))
    .map((line) => line.replace(/^\[[^\]]*\] /, ''))
    .join('; ');
}

function notStarted(message: string, { otherwise }: DaemonOwner): MicroVMError {
  const hint = message.includes(REFUSED)
    ? "The daemon's sandbox takes namespaces that this user or container may not create. Allow user namespaces (sysctl " +
      'kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, ' +
      `kernel.apparmor_restrict_unprivileged_userns=0), run as root, or ${otherwise}.`
    : undefined;
  return new MicroVMError('ERR_MOUNT_FAILED', message, { hint });
}
