import type { Accelerator, MachineExit } from './accelerators/accelerator.ts';
import type { ForwardOptions, MicroVMOptions, ReverseOptions } from './config/options.ts';
import { forwardSpec, reverseSpec } from './config/port-options.ts';
import type { TextEncoding } from './guest-api/file-options.ts';
import { GuestFiles } from './guest-api/guest-files.ts';
import type { PortForward } from './guest-api/port-forward.ts';
import type { GuestConsole } from './vm/console.ts';
import { type BootedMachine, createMachine } from './vm/create.ts';
import type { ExecOptions } from './vm/exec-options.ts';
import type { GuestProcess } from './vm/guest-process.ts';
import type { MachineInfo } from './vm/info.ts';
import { type MachineMetrics, metricsOf } from './vm/metrics.ts';
import { pause, resume } from './vm/pause.ts';
import { startProcess } from './vm/run-process.ts';
import { stop, type StopOptions } from './vm/stop.ts';
import type { BootTimings } from './vm/timings.ts';
import type { GuestVsock } from './vsock/guest-vsock.ts';

export type { GuestConsole } from './vm/console.ts';
export type { ExecOptions, ExecResult, StdinSource } from './vm/exec-options.ts';
export { GuestFileError } from './guest-api/file-error.ts';
export type { GuestDirent, GuestStats } from './guest-api/file-status.ts';
export type {
  AppendOptions,
  FileContent,
  MkdirOptions,
  ReaddirOptions,
  ReadFileOptions,
  ReadOptions,
  ReadStreamOptions,
  RmOptions,
  TextEncoding,
  WriteFlag,
  WriteOptions,
  WriteStreamOptions,
} from './guest-api/file-options.ts';
export type { GuestFiles } from './guest-api/guest-files.ts';
export type { CopyOptions, CopyOutOptions, CopyProgress, CopyResult } from './guest-api/copy.ts';
export type { GuestWatcher, WatchEvent, WatchOptions } from './guest-api/watch.ts';
export type { PortAddress, PortForward } from './guest-api/port-forward.ts';
export type { GuestVsock, VsockConnectOptions } from './vsock/guest-vsock.ts';
export type { VsockServer } from './vsock/vsock-server.ts';
export { GuestProcess } from './vm/guest-process.ts';
export type { MachineInfo } from './vm/info.ts';
export type { DeviceMetrics, HostMetrics, QueueMetrics } from './accelerators/metrics.ts';
export type { MachineMetrics } from './vm/metrics.ts';
export type { StopOptions } from './vm/stop.ts';
export type { BootTimings } from './vm/timings.ts';
export type { MachineExit, MachineExitReason } from './accelerators/accelerator.ts';

/**
 * A Linux guest in a virtual machine of its own.
 *
 * ```ts
 * const vm = await MicroVM.create();
 * try {
 *   const { stdout } = await vm.exec('uname', ['-a']);
 * } finally {
 *   await vm.stop();
 * }
 * ```
 *
 * With Node 24 or TypeScript, `await using vm = await MicroVM.create()` stops it at the end of the block.
 */
export class MicroVM implements AsyncDisposable {
  readonly #vm: BootedMachine;
  #files: GuestFiles | undefined;

  private constructor(vm: BootedMachine) {
    this.#vm = vm;
  }

  /**
   * Boots a guest; resolves when it takes commands. When it rejects nothing is left behind.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS` with every wrong option before anything is started, else with the code
   *   of what failed, a hint, and the tail of the guest's console where there was one.
   */
  static async create(options: MicroVMOptions = {}): Promise<MicroVM> {
    return new MicroVM(await createMachine(options));
  }

  /** What `microvm cp` finds it by: the option `name`, else an id of 12 digits. */
  get name(): string {
    return this.#vm.name;
  }

  /** What runs the guest. */
  get accelerator(): Accelerator['name'] {
    return this.#vm.accelerator;
  }

  /** Why that one: one line to show to a person. */
  get acceleratorReason(): string {
    return this.#vm.acceleratorReason;
  }

  /** What it is: its kernel, processors, memory, process, sockets. The same until its end, and readable after it. */
  get info(): MachineInfo {
    return this.#vm.info;
  }

  /**
   * What it takes of this host now, what its devices did, and how much memory its guest has left. The guest is asked for that,
   * so a paused machine answers when it runs on.
   *
   * @throws {MicroVMError} `ERR_MACHINE_EXITED` and its kin, `ERR_AGENT_LOST`, `ERR_AGENT_TIMEOUT`
   */
  async metrics(): Promise<MachineMetrics> {
    return metricsOf(this.#vm);
  }

  /** How long the parts of the start took, in milliseconds. */
  get timings(): BootTimings {
    return this.#vm.timings;
  }

  /**
   * The serial console: what the guest prints, and its input. It need not be read: a bounded part of the output is kept
   * for whoever reads it later, and `tail` has its last lines.
   */
  get console(): GuestConsole {
    return this.#vm.console;
  }

  /**
   * Resolves with the reason when the machine has ended and nothing of it is left. Never rejects. A guest that crashed
   * (`panic`, `reset`, `triple-fault`, …) has the end of its console with it.
   */
  get exited(): Promise<MachineExit> {
    return this.#vm.exited;
  }

  /**
   * Runs a program with a list of arguments, or one string: a line for the guest's shell, unless it is a mere name or path.
   * Text that is not your own belongs into the list, where no shell reads it. Commands run side by side. What it returns is a promise of the result, and has the command's streams, its number and `kill`.
   *
   * @throws {MicroVMError} `ERR_EXEC_FAILED` for another exit code than 0 or a signal, `ERR_EXEC_TIMEOUT` and
   *   `ERR_EXEC_ABORTED`, unless `reject` is false. Always: `ERR_INVALID_OPTIONS`, `ERR_EXEC_CWD`, `ERR_EXEC_START`,
   *   `ERR_EXEC_STDIN`, `ERR_EXEC_MAX_BUFFER`, `ERR_COMMAND_TOO_LARGE`, `ERR_NOT_SUPPORTED`, `ERR_AGENT_LOST`,
   *   `ERR_AGENT_TIMEOUT`, `ERR_AGENT_PROTOCOL`, `ERR_MACHINE_EXITED` and its kin. The error has the result's fields.
   */
  exec(command: string, options: ExecOptions & BytesWanted): GuestProcess<Buffer>;
  exec(command: string, options?: ExecOptions & TextWanted): GuestProcess;
  exec(command: string, options?: ExecOptions): GuestProcess<string | Buffer>;
  exec(file: string, args: readonly string[], options: ExecOptions & BytesWanted): GuestProcess<Buffer>;
  exec(file: string, args: readonly string[], options?: ExecOptions & TextWanted): GuestProcess;
  exec(file: string, args: readonly string[], options?: ExecOptions): GuestProcess<string | Buffer>;
  exec(
    file: string,
    argsOrOptions?: readonly string[] | ExecOptions,
    options?: ExecOptions,
  ): GuestProcess<string | Buffer> {
    if (isList(argsOrOptions)) return startProcess(this.#vm, file, argsOrOptions, options ?? {});
    const given = argsOrOptions ?? options;
    return startProcess(this.#vm, file, [], { ...given, shell: given?.shell ?? !PLAIN.test(file) });
  }

  /** Files of the guest, by the names of `node:fs/promises`. */
  get fs(): GuestFiles {
    this.#files ??= new GuestFiles(this.#vm.api);
    return this.#files;
  }

  /** Vsock streams to and from programs of the guest. */
  get vsock(): GuestVsock {
    return this.#vm.vsock;
  }

  /**
   * Listens on this host for a port of the guest: a TCP port of its loopback interface, or a Unix socket. Each connection
   * is joined to a new one in the guest; where the guest refuses it, it is reset. Closed with the machine.
   *
   * @throws {MicroVMError} `ERR_PORT_TAKEN`, `ERR_SOCKET_FAILED`, `ERR_INVALID_OPTIONS`, `ERR_MACHINE_EXITED` and its kin
   */
  async forward(options: ForwardOptions): Promise<PortForward> {
    return this.#vm.ports.forward(forwardSpec(options));
  }

  /**
   * The other way round: listens in the guest for a service of this host, which is the only one that the guest reaches by
   * it. Closed with the machine.
   *
   * @throws {MicroVMError} `ERR_PORT_TAKEN`, `ERR_AGENT_REFUSED`, `ERR_INVALID_OPTIONS`, `ERR_MACHINE_EXITED` and its kin
   */
  async reverse(options: ReverseOptions): Promise<PortForward> {
    return this.#vm.ports.reverse(reverseSpec(options));
  }

  /** The ports that are forwarded now, both ways: those of the option `ports` first. */
  get forwards(): readonly PortForward[] {
    return this.#vm.ports.list();
  }

  /**
   * Stops the processors; the guest notices nothing but the time that is missing. What waits for its agent waits on; the
   * `timeout` of a command, which is the caller's, counts all the same.
   *
   * @throws {MicroVMError} `ERR_MACHINE_EXITED` and its kin
   */
  async pause(): Promise<void> {
    await pause(this.#vm);
  }

  /**
   * Lets the processors run on.
   *
   * @throws {MicroVMError} `ERR_MACHINE_EXITED` and its kin
   */
  async resume(): Promise<void> {
    await resume(this.#vm);
  }

  /**
   * Has the guest write back its data and switch itself off, and kills it when it takes too long. A paused guest runs on
   * for that. A second call waits for the first, whose timeout counts.
   *
   * @throws {MicroVMError} `ERR_INVALID_OPTIONS`
   */
  async stop(options: StopOptions = {}): Promise<MachineExit> {
    return stop(this.#vm, options);
  }

  /** The same as {@link stop}: `reason` is `power-off` where the guest did it, `stopped` where it was killed. */
  async shutdown(options: StopOptions = {}): Promise<MachineExit> {
    return stop(this.#vm, options);
  }

  /** Ends the machine at once, like pulling the plug. */
  async kill(): Promise<MachineExit> {
    return this.#vm.kill();
  }

  /** The same as {@link stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Options of which it is known that they ask for bytes. */
interface BytesWanted {
  readonly encoding: 'buffer';
}

/** Options of which it is known that they ask for text. */
interface TextWanted {
  readonly encoding?: TextEncoding | undefined;
}

/** A name or a path: nothing in it means anything to a shell. */
const PLAIN = /^[\w@%+:,./-]*$/;

function isList(value: readonly string[] | ExecOptions | undefined): value is readonly string[] {
  return Array.isArray(value);
}
