// `microvm run`: one machine, one command, its output and exit code.

import { MicroVMError } from '../../errors.ts';
import type { MicroVMOptions } from '../../config/options.ts';
import { MicroVM, type ExecOptions, type ExecResult } from '../../micro-vm.ts';
import { prepareCommand } from '../../vm/exec.ts';
import { mountOptions, rootfsOption } from '../mount-arguments.ts';
import { publishedPorts } from '../publish-arguments.ts';
import { type OptionTable, parseArguments, type ParsedArguments, UsageError } from '../arguments.ts';
import { OWN_FAILURE, TIMED_OUT } from '../exit-codes.ts';
import type { HelpPage } from '../help.ts';
import { type Interruption, interruptible } from '../interruption.ts';
import { type Progress, startProgress } from '../progress.ts';
import { errorAsData, errorAsText } from '../report-error.ts';
import { copyOutputs, takeOverTerminal, terminalSize } from '../streams.ts';
import { environment, printJson, userOption, wholeNumber } from '../values.ts';

const options = {
  interactive: { type: 'boolean', short: 'i', help: 'Give the command standard input (empty otherwise)' },
  tty: { type: 'boolean', short: 't', help: 'Run the command on a terminal; with -i every key is its own' },
  accelerator: {
    type: 'string',
    value: 'NAME',
    help: 'auto, kvm or tcg; auto takes kvm where guests run natively (default auto)',
  },
  kernel: {
    type: 'string',
    value: 'PATH',
    help: 'Guest kernel: a bzImage or an ELF vmlinux (default: the cached one)',
  },
  rootfs: {
    type: 'string',
    value: 'PATH',
    help: "Folder to run from, or cpio archive that is packed into memory; or the word host (this host's /), none or default",
  },
  mount: {
    type: 'string',
    short: 'v',
    multiple: true,
    value: 'SRC:DST[:ro,cache=…]',
    help: 'Mount a folder or file of this host at DST in the guest. Repeatable',
  },
  publish: {
    type: 'string',
    short: 'p',
    multiple: true,
    value: '[ADDRESS:]HOST:GUEST',
    help: "Listen at a port of this host (127.0.0.1 unless told) for one of the guest's; paths are Unix sockets. Repeatable",
  },
  cpus: { type: 'string', value: 'N', help: 'Virtual CPUs, 1 to 64 (default 1)' },
  memory: { type: 'string', value: 'SIZE', help: 'Guest memory, such as 512MiB or 2GiB (default 256MiB)' },
  env: {
    type: 'string',
    short: 'e',
    multiple: true,
    value: 'K=V',
    help: 'Environment variable for the command; K alone takes the value from here. Repeatable',
  },
  user: {
    type: 'string',
    short: 'u',
    value: 'USER[:GROUP]',
    help: "Whom the command runs as: the guest's names or numbers (default root)",
  },
  cwd: { type: 'string', short: 'w', value: 'DIR', help: 'Working folder in the guest (default /)' },
  timeout: { type: 'string', value: 'MS', help: 'End the command after so many milliseconds (exit code 124)' },
  'boot-timeout': {
    type: 'string',
    value: 'MS',
    help: 'How long the guest may take to boot (default 30000 on kvm, 120000 on tcg)',
  },
  name: { type: 'string', value: 'NAME', help: 'What microvm cp finds the machine by (default an id)' },
  vsock: { type: 'string', value: 'NAME', help: 'unix, or vhost for the AF_VSOCK of this host (default unix)' },
  console: { type: 'boolean', help: 'Copy the guest console to standard error' },
  json: { type: 'boolean', help: 'Print one JSON object with output, exit code, timings or the error' },
  help: { type: 'boolean', short: 'h', help: 'Show this page' },
} as const satisfies OptionTable;

export const runPage: HelpPage = {
  summary: 'Boots a microVM, runs one command in it and removes it.',
  usage: 'run [options] -- COMMAND [ARGS…]',
  options,
  sections: {
    'Exit codes': [
      "N    the command's own; 128 + signal when a signal ended it",
      '124  the command ran longer than --timeout',
      '125  microvm itself failed: bad options, no kernel, the guest did not boot',
      '126  the command was found but cannot be run',
      '127  the command was not found',
      '130  interrupted by Ctrl-C',
      '143  ended by SIGTERM',
    ],
  },
  examples: [
    ['microvm run -- uname -a', 'Run a command in a fresh Linux'],
    ["microvm run --memory 1GiB --cpus 2 -- sh -c 'nproc; free -m'", 'Run a shell line on a larger machine'],
    ['microvm run -it -- sh', 'Work in a shell of a fresh Linux'],
    ['tar c src | microvm run -i -- sh -c "tar x && ls src"', 'Send files in by standard input'],
    ['microvm run --mount .:/work --rootfs host -- ls /work', "Run this host's programs on this folder"],
    ['microvm run -p 8080:80 --mount .:/www -- httpd -f -h /www', "Serve this folder from the guest's port 80"],
    ['microvm run --json -- cat /proc/cpuinfo | jq .timings', 'Let a program read the result'],
  ],
};

/** Runs the command; resolves with the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const given = parseArguments(argv, options);
  const [file, ...args] = given.rest;
  if (file === undefined) {
    throw new UsageError('No command to run', 'microvm run -- COMMAND');
  }

  if (given.flag('tty') && given.flag('json')) throw new UsageError('--json and --tty do not go together');
  if (given.flag('tty') && given.flag('interactive') && !process.stdin.isTTY) {
    throw new UsageError('Standard input is no terminal, which -it needs', '-i');
  }

  const interruption = interruptible();
  const progress = startProgress(process.stderr, !given.flag('json') && !given.flag('console'));
  try {
    const request = {
      machine: machineOptions(given, interruption.signal),
      exec: {
        timeout: wholeNumber(given, 'timeout'),
        cwd: given.text('cwd'),
        ...userOption(given.text('user')),
        signal: interruption.signal,
      },
      file,
      args,
    };
    prepareCommand(file, args, request.exec);
    return await runOnce(given, request, interruption, progress);
  } catch (error) {
    progress.clear();
    if (interruption.exitCode !== undefined) return interruption.exitCode;
    if (given.flag('json')) printJson({ error: errorAsData(error, 'run') });
    else process.stderr.write(errorAsText(error, process.stderr, 'run'));
    return error instanceof MicroVMError && error.code === 'ERR_EXEC_TIMEOUT' ? TIMED_OUT : OWN_FAILURE;
  } finally {
    interruption.end();
  }
}

interface Request {
  readonly machine: MicroVMOptions;
  readonly exec: Pick<ExecOptions, 'timeout' | 'cwd' | 'user' | 'group'> & { readonly signal: AbortSignal };
  readonly file: string;
  readonly args: readonly string[];
}

async function runOnce(
  given: ParsedArguments,
  request: Request,
  interruption: Interruption,
  progress: Progress,
): Promise<number> {
  const vm = await MicroVM.create({
    ...request.machine,
    onPhase: progress.phase,
    ...(given.flag('console') && { onConsole: (chunk: Uint8Array) => process.stderr.write(chunk) }),
  });
  interruption.again = () => void vm.kill();
  try {
    if (vm.accelerator === 'tcg' && request.machine.accelerator !== 'tcg') progress.note(vm.acceleratorReason);
    for (const [index, forward] of vm.forwards.entries()) {
      const { guest, host } = request.machine.ports?.[index] ?? {};
      const { address, port } = forward.address();
      if (host === 0) progress.tell(`port ${guest} of the guest is at ${address} port ${port}`);
    }
    return await (given.flag('json') ? runForJson : runOnStreams)(vm, given, request, interruption, progress);
  } finally {
    await vm.stop();
  }
}

async function runOnStreams(
  vm: MicroVM,
  given: ParsedArguments,
  request: Request,
  interruption: Interruption,
  progress: Progress,
): Promise<number> {
  const onTerminal = given.flag('tty');
  progress.clear();
  const command = vm.exec(request.file, request.args, {
    ...request.exec,
    ...inputOf(given),
    ...(onTerminal && { pty: terminalSize(), env: terminalEnvironment(request.machine) }),
    buffer: false,
    reject: false,
  });
  interruption.forward = (name) => void command.kill(name).catch(() => {});
  const release = onTerminal && given.flag('interactive') ? takeOverTerminal(command) : () => {};
  try {
    const [result] = await Promise.all([command, copyOutputs(command)]);
    if (result.timedOut) process.stderr.write(`microvm: the command ran longer than ${request.exec.timeout} ms\n`);
    return exitCodeOf(result, interruption);
  } finally {
    release();
    interruption.forward = undefined;
  }
}

async function runForJson(
  vm: MicroVM,
  given: ParsedArguments,
  request: Request,
  interruption: Interruption,
  progress: Progress,
): Promise<number> {
  progress.say(`running ${request.file}`);
  const command = vm.exec(request.file, request.args, {
    ...request.exec,
    ...inputOf(given),
    encoding: 'buffer',
    reject: false,
  });
  interruption.forward = (name) => void command.kill(name).catch(() => {});
  const result = await command.finally(() => (interruption.forward = undefined));
  progress.clear();
  printJson({
    ...asText(result),
    accelerator: vm.accelerator,
    acceleratorReason: vm.acceleratorReason,
    timings: vm.timings,
  });
  return exitCodeOf(result, interruption);
}

function exitCodeOf({ timedOut, exitCode }: ExecResult<string | Buffer>, interruption: Interruption): number {
  return timedOut ? TIMED_OUT : (exitCode ?? interruption.exitCode ?? OWN_FAILURE);
}

function inputOf(given: ParsedArguments): Pick<ExecOptions, 'stdin'> {
  return { stdin: given.flag('interactive') ? 'inherit' : 'ignore' };
}

/** What a program on a terminal has to know of it, unless the caller says otherwise. */
function terminalEnvironment({ env }: MicroVMOptions): Record<string, string> {
  return { TERM: env?.['TERM'] ?? process.env['TERM'] ?? 'xterm' };
}

function asText(result: ExecResult<Buffer>): Record<string, unknown> {
  return { ...result, stdout: result.stdout.toString(), stderr: result.stderr.toString() };
}

function machineOptions(given: ParsedArguments, signal: AbortSignal): MicroVMOptions {
  return {
    accelerator: given.text('accelerator') as MicroVMOptions['accelerator'],
    kernel: given.text('kernel'),
    rootfs: rootfsOption(given.text('rootfs')),
    mounts: mountOptions(given.texts('mount')),
    ports: publishedPorts(given.texts('publish')),
    cpus: wholeNumber(given, 'cpus'),
    memory: given.text('memory'),
    env: environment(given.texts('env')),
    bootTimeout: wholeNumber(given, 'boot-timeout'),
    name: given.text('name'),
    vsock: given.text('vsock') as MicroVMOptions['vsock'],
    signal,
  };
}
