// `microvm cp`: files and folders into a machine that runs in another process, and out of one.

import { constants } from 'node:os';
import { pipeline } from 'node:stream/promises';

import { errnoOf, MicroVMError } from '../../errors.ts';
import { AgentApi } from '../../guest-api/agent-api.ts';
import { type CopyOutOptions, type CopyResult, receiveArchive, sendArchive } from '../../guest-api/copy.ts';
import { GuestFileError } from '../../guest-api/file-error.ts';
import { GuestFiles } from '../../guest-api/guest-files.ts';
import { findMachine } from '../../host/running-machines.ts';
import { unixTransport } from '../../vsock/transport.ts';
import { type OptionTable, parseArguments, type ParsedArguments, UsageError } from '../arguments.ts';
import { type Copy, copyOf } from '../copy-arguments.ts';
import { OWN_FAILURE, SIGNALED } from '../exit-codes.ts';
import type { HelpPage } from '../help.ts';
import { interruptible } from '../interruption.ts';
import { type Progress, startProgress } from '../progress.ts';
import { errorAsData, errorAsText } from '../report-error.ts';
import { byteCount, byteSize, printJson, wholeNumber } from '../values.ts';

const options = {
  archive: { type: 'boolean', short: 'a', help: 'Keep owners, by number, and set-id bits' },
  exclude: {
    type: 'string',
    multiple: true,
    value: 'PATTERN',
    help: "Leave out names such as '*.log', or paths such as /build. Repeatable",
  },
  'max-bytes': {
    type: 'string',
    value: 'SIZE',
    help: 'From a machine to DST: the most content, such as 512MiB or a number of bytes (default 16GiB)',
  },
  'max-entries': {
    type: 'string',
    value: 'N',
    help: 'From a machine to DST: the most files and folders (default 1000000)',
  },
  quiet: { type: 'boolean', short: 'q', help: 'Show no progress' },
  json: { type: 'boolean', help: 'Print one JSON object with what was copied, or the error' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

export const cpPage: HelpPage = {
  summary: 'Copies files and folders into a running machine, and out of one.',
  usage: 'cp [options] SRC|- NAME:DST\n  microvm cp [options] NAME:SRC DST|-',
  options,
  sections: {
    'What goes where': [
      'NAME is the one of microvm run --name, or the id of a machine without one. The machine has to be up: one that still',
      'boots cannot be reached yet, and cp does not wait for it.',
      'A folder that is there gets the copy under its own name; else DST is what the copy is called.',
      'SRC/. copies the contents of a folder. - is a tar stream, which is unpacked into the folder DST.',
      'A path of this host that has a colon is written with ./',
    ],
  },
  examples: [
    [
      "microvm run --name box -- sh -c 'echo up; exec sleep 1000' &",
      'Start a machine with a name, and see when it is up',
    ],
    ['microvm cp src box:/work', 'Copy a folder into it'],
    ['microvm cp box:/var/log/. logs', 'Copy what is in a folder out of it'],
    ['tar c . | microvm cp - box:/work', 'Unpack a tar stream in it'],
    ['microvm cp box:/etc - | tar t', 'List a folder of it'],
  ],
};

/** Runs the command; resolves with the exit code. */
export async function cp(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv, options);
  const copy = copyOf(given.rest);
  refuseIdleOptions(copy, given);
  if (copy.to === 'host' && copy.target.kind === 'stream' && process.stdout.isTTY) {
    throw new UsageError('A tar stream is nothing for a terminal: send it to a file or a program');
  }
  if (copy.to === 'guest' && copy.source.kind === 'stream' && process.stdin.isTTY) {
    throw new UsageError(
      'Standard input is a terminal, where a tar stream should come in',
      'tar c SRC | microvm cp - NAME:DST',
    );
  }
  const interruption = interruptible();
  const progress = startProgress(process.stderr, !given.flag('json') && !given.flag('quiet'));
  try {
    const result = await perform(copy, given, progress, interruption.signal);
    progress.clear();
    if (given.flag('json')) printJson(result);
    return 0;
  } catch (error) {
    progress.clear();
    if (interruption.exitCode !== undefined) return interruption.exitCode;
    // A reader that has seen enough.
    if (errnoOf(error) === 'EPIPE') return SIGNALED + constants.signals.SIGPIPE;
    const told = explained(error);
    if (given.flag('json')) printJson({ error: errorAsData(told, 'cp') });
    else process.stderr.write(errorAsText(told, process.stderr, 'cp'));
    return OWN_FAILURE;
  } finally {
    interruption.end();
  }
}

/** Refuses options that would do nothing: who gave them counts on them. */
function refuseIdleOptions(copy: Copy, given: ParsedArguments): void {
  const isStream = (copy.to === 'guest' ? copy.source : copy.target).kind === 'stream';
  if (isStream && given.flag('json')) throw new UsageError('--json and - do not go together');
  if (isStream && copy.to === 'guest' && given.flag('exclude')) {
    throw new UsageError(
      '--exclude does nothing for a tar stream that goes in: leave files out where it is made',
      'tar c --exclude=PATTERN SRC | microvm cp - NAME:DST',
    );
  }
  if (isStream && copy.to === 'host' && given.flag('archive')) {
    throw new UsageError(
      '--archive does nothing for a tar stream that comes out, which has all owners: whoever unpacks it decides',
      'microvm cp NAME:SRC - | tar xp',
    );
  }
  for (const limit of ['max-bytes', 'max-entries'] as const) {
    if (given.flag(limit) && (isStream || copy.to === 'guest')) {
      throw new UsageError(`--${limit} is for copies out of a machine to a path of this host`);
    }
  }
}

async function perform(
  copy: Copy,
  given: ParsedArguments,
  progress: Progress,
  signal: AbortSignal,
): Promise<CopyResult | undefined> {
  const { machine, path } = copy.guest;
  const limits = { maxBytes: byteCount(given, 'max-bytes'), maxEntries: wholeNumber(given, 'max-entries') };
  progress.say(`looking for ${machine}`);
  const found = await findMachine(machine);
  const api = new AgentApi(unixTransport(found.socket));
  // A guest that does not even take the connection is left at once, too.
  const leave = (): void => api.close();
  signal.addEventListener('abort', leave, { once: true });
  try {
    const copying: CopyOutOptions = {
      signal,
      preserveOwner: given.flag('archive'),
      exclude: given.texts('exclude'),
      onProgress: ({ entries, bytes, path }) =>
        progress.say(`${entries} entries, ${byteSize(bytes)}: ${printable(path)}`),
    };
    if (copy.to === 'guest') {
      if (copy.source.kind === 'host') return await new GuestFiles(api).copyIn(copy.source.path, path, copying);
      await sendArchive(api, process.stdin, path, copying);
      return undefined;
    }
    if (copy.target.kind === 'host') {
      return await new GuestFiles(api).copyOut(path, copy.target.path, { ...copying, ...limits });
    }
    await pipeline(receiveArchive(api, path, copying), process.stdout, { end: false });
    return undefined;
  } finally {
    signal.removeEventListener('abort', leave);
    api.close();
  }
}

/** What the guest refuses is no defect here. */
function explained(error: unknown): unknown {
  if (!(error instanceof GuestFileError)) return error;
  return new MicroVMError('ERR_AGENT_REFUSED', `The guest says ${printable(error.message)}`, { cause: error });
}

/** Names of a guest are not to reach a terminal as commands. */
function printable(text: string): string {
  return text.replaceAll(/\p{Control}/gu, '?').slice(-200);
}
