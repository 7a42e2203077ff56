// QEMU's control protocol (QMP): JSON lines over a stream. Commands are answered in order; events come in between.

import type { Duplex } from 'node:stream';
import { MicroVMError } from '../../errors.ts';

/** An event from QEMU, such as `SHUTDOWN`. */
export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** QEMU's version as it tells it. */
export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

interface Message extends Partial<QmpEvent> {
  readonly QMP?: { readonly version: { readonly qemu: QemuVersion } };
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

interface Waiter {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: MicroVMError) => void;
}

/** Lines of QEMU are short; one that is not comes from something else. */
const MAX_LINE_BYTES = 1 << 20;

/** One control connection. */
export class QmpClient {
  readonly #stream: Duplex;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #waiters: Waiter[] = [];
  #closed: MicroVMError | undefined;
  #line = '';

  private constructor(stream: Duplex, onEvent: (event: QmpEvent) => void) {
    this.#stream = stream;
    this.#onEvent = onEvent;
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => this.#take(text));
    stream.on('error', (cause) => this.#end('The connection failed', cause));
    stream.on('close', () => this.#end('QEMU closed the connection'));
  }

  /**
   * Reads the greeting and switches the connection to command mode.
   *
   * @throws {MicroVMError} `ERR_QEMU_FAILED` when QEMU ends first, `ERR_QEMU_TOO_OLD` below `oldest` (a major version).
   */
  static async connect(stream: Duplex, oldest: number, onEvent: (event: QmpEvent) => void): Promise<QmpClient> {
    const client = new QmpClient(stream, onEvent);
    const version = (await client.#answer('greeting')) as QemuVersion;
    if (!(version.major >= oldest)) {
      throw new MicroVMError('ERR_QEMU_TOO_OLD', `QEMU ${version.major}.${version.minor}.${version.micro} is too old`, {
        hint: `Install QEMU ${oldest}.0 or newer (Debian: apt-get install qemu-system-x86).`,
      });
    }
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Runs a command and gives its answer. Rejects with `ERR_QEMU_FAILED`. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#closed) return Promise.reject(this.#closed);
    this.#stream.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return this.#answer(command);
  }

  /** Closes the connection; commands under way reject. */
  close(): void {
    this.#stream.destroy();
  }

  #answer(command: string): Promise<unknown> {
    if (this.#closed) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => this.#waiters.push({ command, resolve, reject }));
  }

  #take(text: string): void {
    const lines = (this.#line + text).split('\n');
    this.#line = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') this.#handle(line);
    if (this.#line.length > MAX_LINE_BYTES) this.#break('It sent a line without end');
  }

  #handle(line: string): void {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch (cause) {
      return this.#break('It sent something that is not JSON', cause);
    }
    if (message.event !== undefined) return this.#onEvent({ event: message.event, data: message.data ?? {} });
    const waiter = this.#waiters.shift();
    if (message.error) {
      waiter?.reject(failure(`QEMU refused ${waiter.command}: ${message.error.desc}`));
    } else {
      waiter?.resolve(message.QMP ? message.QMP.version.qemu : message.return);
    }
  }

  #break(reason: string, cause?: unknown): void {
    this.#end(reason, cause);
    this.close();
  }

  #end(reason: string, cause?: unknown): void {
    this.#closed ??= failure(`QEMU's control connection is gone: ${reason}`, cause);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#closed);
  }
}

function failure(message: string, cause?: unknown): MicroVMError {
  return new MicroVMError('ERR_QEMU_FAILED', message, cause === undefined ? {} : { cause });
}
