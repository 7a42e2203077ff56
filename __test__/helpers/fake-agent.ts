// The agent's end of the command channel, over the real socket, under the test's control byte by byte.

import { connect, type Socket } from 'node:net';
import { once } from 'node:events';

export class FakeAgent {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
  }

  static async dial(path: string): Promise<FakeAgent> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new FakeAgent(socket);
  }

  /** Dials and answers the probe. */
  static async ready(path: string): Promise<FakeAgent> {
    const agent = await FakeAgent.dial(path);
    await agent.answerProbe();
    return agent;
  }

  async answerProbe(): Promise<void> {
    const probe = await this.command();
    if (probe !== ':') throw new Error(`Expected the probe, got ${JSON.stringify(probe)}`);
    this.socket.write(reply());
  }

  /** The next command. */
  async command(): Promise<string> {
    const length = (await this.#take(4)).readUInt32BE();
    return (await this.#take(length)).toString();
  }

  /** Resolves when the host has closed the connection. */
  async closed(): Promise<void> {
    this.socket.resume();
    if (this.socket.closed) return;
    this.socket.once('end', () => this.socket.destroy());
    await once(this.socket, 'close');
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#received.length < bytes) {
      const piece: Buffer | null = this.socket.read();
      if (piece) this.#received = Buffer.concat([this.#received, piece]);
      else await once(this.socket, 'readable');
      if (this.socket.readableEnded) throw new Error('The host closed the connection');
    }
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }
}

/** The bytes of a reply. */
export function reply(stdout: string | Buffer = '', stderr: string | Buffer = '', exitCode = 0): Buffer {
  const frame = (content: string | Buffer): Buffer => {
    const body = Buffer.from(content);
    const header = Buffer.alloc(4);
    header.writeUInt32BE(body.length);
    return Buffer.concat([header, body]);
  };
  return Buffer.concat([frame(stdout), frame(stderr), Buffer.from([exitCode])]);
}
