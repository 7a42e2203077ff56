// One daemon a share: started by the addon, so that it dies with this process, and confined by itself.

import type { BindingChild } from '../binding.ts';
import { MicroVMError } from '../errors.ts';
import { describeEnd, readWords } from '../host/helper-process.ts';
import { fromNative } from '../native-error.ts';
import { loadBinding, virtiofsdPath } from '../native.ts';
import type { Share } from './share.ts';

const SIGTERM = 15;
/** What the daemon logs when it listens. */
const LISTENS = 'Waiting for vhost-user socket connection';

/** A daemon that listens. */
export interface ShareDaemon {
  /** Resolves when it has ended: with why, where that was not because the machine went. Never rejects. */
  readonly ended: Promise<string | undefined>;
  /** Ends it; resolves when it and its files are gone. */
  stop(): Promise<void>;
  stopSync(): void;
}

/**
 * Starts a share's daemon; resolves when it listens at `socket`.
 *
 * @throws {MicroVMError} `ERR_MOUNT_FAILED` with its words where it does not get that far, `ERR_VIRTIOFSD_MISSING`,
 *   `ERR_SPAWN_FAILED`
 */
export async function startShareDaemon(share: Share, socket: string, tellsTag: boolean): Promise<ShareDaemon> {
  const args = [...shareArguments(share, socket), ...(tellsTag ? ['--tag', share.tag] : [])];
  return startDaemon(args, `The daemon that serves ${share.source} at ${share.target}`);
}

/** Starts a daemon with these arguments; `name` begins the messages about it. */
export async function startDaemon(args: readonly string[], name: string): Promise<ShareDaemon> {
  const program = virtiofsdPath();
  let child: BindingChild;
  try {
    const env = { PATH: process.env['PATH'] ?? '' };
    child = loadBinding().spawnHelper({ program, args, env, fds: [], captureStderr: true });
  } catch (error) {
    throw fromNative(error);
  }
  let listens = (): void => {};
  const listening = new Promise<true>((resolve) => {
    listens = () => resolve(true);
  });
  let seen = '';
  const words = readWords(child.takeStderr(), (text) => {
    if (seen.includes(LISTENS)) return;
    seen += text;
    if (seen.includes(LISTENS)) listens();
  });
  let stopped = false;
  const ended = child.wait().then(async (status) => {
    const why = describeEnd(status, messages(await words.atEnd()));
    return stopped || status.code === 0 ? undefined : `${name} ended with ${why}`;
  });
  if ((await Promise.race([listening, ended])) !== true) {
    throw notStarted((await ended) ?? `${name} ended before it listened`);
  }
  const stopSync = (): void => {
    stopped = true;
    child.kill(SIGTERM);
  };
  return {
    ended,
    stopSync,
    async stop() {
      stopSync();
      await ended;
    },
  };
}

/** The daemon's options for a share. */
export function shareArguments(share: Omit<Share, 'tag' | 'word' | 'target'>, socket: string): string[] {
  const ids = translations(share);
  return [
    ['--shared-dir', share.source],
    ['--socket-path', socket],
    ['--sandbox', share.sandbox],
    ['--cache', share.cache],
    ['--thread-pool-size', String(share.threads)],
    share.readonly ? ['--readonly'] : [],
    share.writeback ? ['--writeback'] : [],
    share.xattr ? ['--xattr'] : [],
    share.announceSubmounts ? [] : ['--no-announce-submounts'],
    ids.uid.flatMap((rule) => ['--translate-uid', rule]),
    ids.gid.flatMap((rule) => ['--translate-gid', rule]),
  ].flat();
}

/** An ordinary user's daemon can make files of that user only, so that is who root in the guest is. */
function translations({ translateUid, translateGid }: Pick<Share, 'translateUid' | 'translateGid'>): {
  uid: readonly string[];
  gid: readonly string[];
} {
  const [user, group] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  const own = (id: number): string[] => (user === 0 ? [] : [`map:0:${id}:1`]);
  return { uid: translateUid ?? own(user), gid: translateGid ?? own(group) };
}

/** The errors in a log, without their times and places. */
function messages(log: string): string {
  return log
    .split('\n')
    .filter((line) => !/ (?:WARN|INFO|DEBUG|TRACE) /.test(line))
    .map((line) => line.replace(/^\[[^\]]*\] /, ''))
    .join('; ');
}

function notStarted(message: string): MicroVMError {
  const hint = /Error entering sandbox|a mount namespace/.test(message)
    ? "The daemon's sandbox takes namespaces that this user or container may not create. Allow user namespaces (sysctl " +
      'kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), run as root, or set the ' +
      "mount's option sandbox to 'none'."
    : undefined;
  return new MicroVMError('ERR_MOUNT_FAILED', message, { hint });
}
