// Files of agents that mean harm, or stand still: every call ends, with a code, and keeps no more than it was told to.

import { EventEmitter, once } from 'node:events';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { AgentApi, type AgentApiOptions } from '../../src/guest-api/agent-api.ts';
import { GuestFileError } from '../../src/guest-api/file-error.ts';
import { GuestFiles } from '../../src/guest-api/guest-files.ts';
import { Patience } from '../../src/host/patience.ts';
import { metricsOf } from '../../src/vm/metrics.ts';
import { transportTo } from '../helpers/agent-by-hand.ts';
import { hostileAgent } from '../helpers/hostile-agent.ts';

/** For agents whose silence is the point. */
const SHORT = { answerTimeoutMs: 300 };
/** For those that are to be found out before any time is over, on a busy machine too. */
const LONG = { answerTimeoutMs: 60_000 };

type Answer = (stream: ServerHttp2Stream, path: string) => void;

async function apiOf(t: ExecutionContext, answer: Answer, options: AgentApiOptions): Promise<AgentApi> {
  const api = new AgentApi(transportTo(await hostileAgent(t, answer)), options);
  t.teardown(() => api.close());
  return api;
}

async function filesOf(t: ExecutionContext, answer: Answer, options: AgentApiOptions = LONG): Promise<GuestFiles> {
  return new GuestFiles(await apiOf(t, answer, options));
}

/** Begins an answer and never goes on. */
const stall: Answer = (stream) => {
  stream.respond({ ':status': 200 });
  stream.write('{');
};

/** Sends the same without end, as fast as it is taken, and tells how much. */
function flood(bytes: Buffer): { readonly answer: Answer; sent: number } {
  const told = {
    sent: 0,
    answer(stream: ServerHttp2Stream): void {
      stream.respond({ ':status': 200 });
      const more = (): void => {
        told.sent += bytes.length;
        stream.write(bytes, (error) => error ?? setImmediate(more));
      };
      more();
    },
  };
  return told;
}

const OPERATIONS: readonly (readonly [string, (fs: GuestFiles) => Promise<unknown>])[] = [
  ['stat', (fs) => fs.stat('/a')],
  ['readdir', (fs) => fs.readdir('/a')],
  ['rename', (fs) => fs.rename('/a', '/b')],
  ['readlink', (fs) => fs.readlink('/a')],
  ['rm', (fs) => fs.rm('/a', { recursive: true })],
];

for (const [name, operate] of OPERATIONS) {
  test(`an agent that begins to answer ${name} and does not go on is ERR_AGENT_TIMEOUT`, async (t) => {
    const error = await t.throwsAsync(operate(await filesOf(t, stall, SHORT)), { instanceOf: MicroVMError });
    t.is(error?.code, 'ERR_AGENT_TIMEOUT');
  });
}

test('an answer without end is left at its limit', async (t) => {
  const { answer } = flood(Buffer.alloc(1024 * 1024, ' '));
  const fs = await filesOf(t, answer);
  const error = await t.throwsAsync(fs.readdir('/a'), { code: 'ERR_AGENT_PROTOCOL' });
  t.regex(error?.message ?? '', /more than 67108864 bytes/);
});

test('an answer that comes slowly, but comes, is no timeout', async (t) => {
  const text = JSON.stringify({ entries: [{ name: 'one', kind: 0o100_000 }] });
  const fs = await filesOf(
    t,
    (stream) => {
      stream.respond({ ':status': 200 });
      const pieces = text.match(/.{1,4}/g) ?? [];
      const timer = setInterval(() => {
        const piece = pieces.shift();
        if (piece !== undefined) return void stream.write(piece);
        clearInterval(timer);
        stream.end();
      }, 100);
    },
    { answerTimeoutMs: 600 },
  );
  t.deepEqual(await fs.readdir('/a'), ['one'], 'in more time than one limit');
});

test('an operation that lasts is waited for as long as the agent says that it goes on, and its late refusal is told', async (t) => {
  const signsOfLife: Answer = (stream) => {
    let signs = 0;
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => {
      const refusal = JSON.stringify({ code: 'ENOTEMPTY', message: 'Directory not empty' });
      stream.sendTrailers({ refusal: encodeURIComponent(refusal) });
    });
    const timer = setInterval(() => {
      signs += 1;
      stream.write(' ');
      if (signs < 4) return;
      clearInterval(timer);
      stream.end();
    }, 500);
  };
  const fs = await filesOf(t, signsOfLife, { answerTimeoutMs: 1_500 });
  const error = await t.throwsAsync(fs.rm('/a', { recursive: true }), { instanceOf: GuestFileError });
  t.like(error, { code: 'ENOTEMPTY', syscall: 'rm', path: '/a' });
});

test('a paused guest is no timeout in the middle of an answer', async (t) => {
  const patience = new Patience();
  const fs = await filesOf(t, stall, { ...SHORT, patience });
  patience.hold();
  const working = fs.stat('/a');
  const waiting = new Promise((resolve) => setTimeout(resolve, 900, 'waiting'));
  t.is(await Promise.race([working, waiting]), 'waiting');
  patience.release();
  await t.throwsAsync(working, { code: 'ERR_AGENT_TIMEOUT' });
});

test('a reason that does not come to its end is ERR_AGENT_TIMEOUT, while writing too', async (t) => {
  const fs = await filesOf(
    t,
    (stream) => {
      stream.respond({ ':status': 422 });
      stream.write('{');
    },
    SHORT,
  );
  await t.throwsAsync(fs.stat('/a'), { code: 'ERR_AGENT_TIMEOUT' });
  await t.throwsAsync(fs.writeFile('/a', 'x'), { code: 'ERR_AGENT_TIMEOUT' });
  await t.throwsAsync(fs.readFile('/a'), { code: 'ERR_AGENT_TIMEOUT' });
});

test('an agent that takes a content and never tells that it was written is ERR_AGENT_TIMEOUT', async (t) => {
  const fs = await filesOf(t, (stream) => void stream.resume(), SHORT);
  await t.throwsAsync(fs.writeFile('/a', 'x'), { code: 'ERR_AGENT_TIMEOUT' });
  await t.throwsAsync(fs.writeFile('/a', ''), { code: 'ERR_AGENT_TIMEOUT' });
});

test('an agent that takes nothing is ERR_AGENT_TIMEOUT; a source that is slow is not', async (t) => {
  const fs = await filesOf(t, () => {}, SHORT);
  await t.throwsAsync(fs.writeFile('/a', Buffer.alloc(20_000_000)), { code: 'ERR_AGENT_TIMEOUT' });
  let taken = '';
  const good = await filesOf(
    t,
    (stream) => {
      stream.on('data', (piece: Buffer) => (taken += piece.toString()));
      stream.on('end', () => void stream.respond({ ':status': 204 }, { endStream: true }));
    },
    SHORT,
  );
  async function* slow(): AsyncGenerator<string> {
    for (const piece of ['a', 'b', 'c']) {
      await new Promise((resolve) => setTimeout(resolve, 400));
      yield piece;
    }
  }
  await good.writeFile('/a', slow());
  t.is(taken, 'abc');
});

test('a content in one piece may take longer than one limit, as long as it goes on', async (t) => {
  let taken = 0;
  const fs = await filesOf(
    t,
    (stream) => {
      stream.on('end', () => void stream.respond({ ':status': 204 }, { endStream: true }));
      const timer = setInterval(() => {
        const piece = stream.read() as Buffer | null;
        taken += piece?.length ?? 0;
      }, 20);
      stream.on('close', () => clearInterval(timer));
    },
    { answerTimeoutMs: 1_000 },
  );
  const started = performance.now();
  await fs.writeFile('/a', Buffer.alloc(6_000_000));
  t.is(taken, 6_000_000);
  t.true(performance.now() - started > 1_000, 'it took longer than one limit');
});

test('readFile keeps no more than maxBytes', async (t) => {
  const endless = flood(Buffer.alloc(65_536, 'x'));
  const fs = await filesOf(t, endless.answer);
  const error = await t.throwsAsync(fs.readFile('/a', { maxBytes: 1_000_000 }), { instanceOf: MicroVMError });
  t.is(error?.code, 'ERR_FS_FILE_TOO_LARGE');
  t.regex(error?.hint ?? '', /createReadStream/);
  t.true(endless.sent < 8_000_000, `${endless.sent} bytes were taken`);
  const whole = await filesOf(t, (stream) => void (stream.respond({ ':status': 200 }), stream.end('12345')));
  t.is(await whole.readFile('/a', { maxBytes: 5, encoding: 'utf-8' }), '12345');
  await t.throwsAsync(whole.readFile('/a', { maxBytes: 4 }), { code: 'ERR_FS_FILE_TOO_LARGE' });
});

test('a content may stand still as long as it likes, and its reader too; who gives up does at once', async (t) => {
  const fs = await filesOf(
    t,
    (stream) => {
      stream.respond({ ':status': 200 });
      stream.write('a');
      setTimeout(() => void (stream.destroyed || stream.end('b')), 900);
    },
    SHORT,
  );
  t.is(await fs.readFile('/a', 'utf8'), 'ab');
  const pieces: string[] = [];
  for await (const piece of fs.createReadStream('/a')) {
    pieces.push(String(piece));
    await new Promise((resolve) => setTimeout(resolve, 600));
  }
  t.is(pieces.join(''), 'ab');
  const reset = new EventEmitter();
  const still = await filesOf(t, (stream) => {
    stall(stream, '');
    stream.once('close', () => reset.emit('one'));
  });
  const first = once(reset, 'one');
  await t.throwsAsync(still.readFile('/a', { signal: AbortSignal.timeout(100) }), { name: 'AbortError' });
  await first;
  const second = once(reset, 'one');
  const reading = still.createReadStream('/a');
  for await (const piece of reading) {
    t.is(String(piece), '{');
    break;
  }
  await second;
  t.true(reading.destroyed);
});

test('what an agent refuses in the middle of a content is the error behind what came before', async (t) => {
  const refusing = (trailer: string): Answer => {
    return (stream) => {
      stream.respond({ ':status': 200 }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ refusal: trailer }));
      stream.end('before');
    };
  };
  const told = { code: 'EIO', message: 'Input/output error', path: '/a', syscall: 'read' };
  const fs = await filesOf(t, refusing(encodeURIComponent(JSON.stringify(told))));
  const pieces: string[] = [];
  const reading = async (): Promise<void> => {
    for await (const piece of fs.createReadStream('/a')) pieces.push(String(piece));
  };
  const error = await t.throwsAsync(reading(), { instanceOf: GuestFileError });
  t.like(error, { code: 'EIO', errno: -5, syscall: 'read', path: '/a' });
  t.is(pieces.join(''), 'before');
  for (const trailer of ['%', 'x', encodeURIComponent('{"code":1}')]) {
    const other = await filesOf(t, refusing(trailer));
    const broken = await t.throwsAsync(other.readFile('/a'), { instanceOf: MicroVMError });
    t.regex(broken?.code ?? '', /^ERR_AGENT_(PROTOCOL|LOST)$/);
  }
});

test("an agent that breaks a content off is ERR_AGENT_LOST, not the content's end", async (t) => {
  const fs = await filesOf(t, (stream) => {
    stream.respond({ ':status': 200 });
    // What is written is sent; then the connection ends.
    stream.write('half', () => setTimeout(() => (stream.session?.socket as Socket | undefined)?.destroySoon(), 50));
  });
  await t.throwsAsync(fs.readFile('/a'), { code: 'ERR_AGENT_LOST' });
});

test("the guest's figures are not waited for without end, nor taken without end", async (t) => {
  const metrics = async (answer: Answer, options: AgentApiOptions): Promise<unknown> =>
    metricsOf({
      machine: { metrics: async () => ({}) as never },
      api: await apiOf(t, answer, options),
      ended: new AbortController().signal,
    });
  await t.throwsAsync(metrics(stall, SHORT), { code: 'ERR_AGENT_TIMEOUT' });
  await t.throwsAsync(metrics(flood(Buffer.alloc(65_536, 'x')).answer, LONG), { code: 'ERR_AGENT_PROTOCOL' });
});

test('options that are wrong are refused before anything is sent', async (t) => {
  let asked = 0;
  const fs = await filesOf(t, (stream) => void ((asked += 1), stream.close()));
  const refused: readonly (readonly [string, () => unknown])[] = [
    ['encoding', () => fs.readFile('/a', 'latin1' as never)],
    ['encoding', () => fs.readFile('/a', { encoding: 'UTF8' } as never)],
    ['maxBytes', () => fs.readFile('/a', { maxBytes: -1 })],
    ['flags', () => fs.readFile('/a', { flags: 'r' } as never)],
    ['signal', () => fs.readFile('/a', { signal: {} as never })],
    ['flag', () => fs.writeFile('/a', 'x', { flag: 'w+' as never })],
    ['flags', () => fs.writeFile('/a', 'x', { flags: 'a' } as never)],
    ['encoding', () => fs.writeFile('/a', 'x', 'hex' as never)],
    ['mode', () => fs.writeFile('/a', 'x', { mode: 0o200_000 })],
    ['mode', () => fs.chmod('/a', 0o200_000)],
    ['flag', () => fs.appendFile('/a', 'x', { flag: 'a' } as never)],
    ['flags', async () => fs.createWriteStream('/a', { flags: 'a+' as never })],
    ['flag', async () => fs.createWriteStream('/a', { flag: 'a' } as never)],
    ['start', async () => fs.createReadStream('/a', { start: -1 })],
    ['start', async () => fs.createReadStream('/a', { start: 4, end: 3 })],
    ['encoding', async () => fs.createReadStream('/a', { encoding: 'hex' as never })],
    ['encoding', async () => fs.createReadStream('/a', 'latin1' as never)],
    ['path', () => fs.stat('/a\0b')],
    ['path', () => fs.lstat('')],
    ['recursive', () => fs.mkdir('/a', { recursive: 1 as never })],
    ['withFileTypes', () => fs.readdir('/a', { withFileTypes: 'yes' as never } as never)],
    ['force', () => fs.rm('/a', { force: null as never })],
    ['mode', () => fs.access('/a', 8)],
    ['len', () => fs.truncate('/a', -1)],
    ['newPath', () => fs.link('/a', '')],
    ['prefix', () => fs.mkdtemp('a\0b')],
    ['uid', () => fs.chown('/a', 1n as never, 0)],
    ['options', () => fs.rm('/a', 5 as never)],
  ];
  for (const [path, work] of refused) {
    const error = await t.throwsAsync(async () => work(), { instanceOf: MicroVMError }, path);
    t.is(error?.code, 'ERR_INVALID_OPTIONS', path);
    t.deepEqual(
      error?.problems?.map((problem) => problem.path),
      [path],
    );
  }
  t.is(asked, 0);
});
