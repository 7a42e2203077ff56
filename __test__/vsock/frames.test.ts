import test from 'ava';
import fc from 'fast-check';
import { encodeCommand, ReplyParser } from '../../src/vsock/frames.ts';
import { reply } from '../helpers/fake-agent.ts';

const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

/** Cuts a buffer at any places. */
function pieces(whole: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (whole.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((from, index) => whole.subarray(from, places[index] ?? whole.length));
}

test('a reply is the same however its bytes are cut up', (t) => {
  const property = fc.property(
    bytes,
    bytes,
    fc.integer({ min: 0, max: 255 }),
    fc.array(fc.nat(), { maxLength: 20 }),
    (stdout, stderr, exitCode, cuts) => {
      const parser = new ReplyParser(300);
      const results = pieces(reply(stdout, stderr, exitCode), cuts).map((piece) => parser.push(piece));
      const last = results.findLast((result) => result !== undefined);
      t.deepEqual(last, { stdout, stderr, exitCode });
      t.is(results.filter((result) => result !== undefined).length, 1);
    },
  );
  t.notThrows(() => fc.assert(property, { numRuns: 500 }));
});

test('no cut-off reply is taken for a whole one', (t) => {
  const whole = reply('out', 'err', 7);
  for (let length = 0; length < whole.length; length++) {
    t.is(new ReplyParser(100).push(whole.subarray(0, length)), undefined);
  }
  t.is(new ReplyParser(100).push(whole)?.exitCode, 7);
});

test('arbitrary bytes end in a reply, a typed error, or a wait for more', (t) => {
  const property = fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 20 }), (chunks) => {
    const parser = new ReplyParser(64);
    try {
      for (const chunk of chunks) parser.push(Buffer.from(chunk));
    } catch (error) {
      t.regex((error as { code: string }).code, /^ERR_CHANNEL_(?:PROTOCOL|FRAME_TOO_LARGE)$/);
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 1000 }));
});

test('an announced frame over the limit is refused by its header alone', (t) => {
  const header = Buffer.from([0xff, 0xff, 0xff, 0xff]);
  t.throws(() => new ReplyParser(16).push(header), { code: 'ERR_CHANNEL_FRAME_TOO_LARGE', message: /standard output/ });
  const second = new ReplyParser(16);
  t.is(second.push(Buffer.alloc(4)), undefined);
  t.throws(() => second.push(header), {
    code: 'ERR_CHANNEL_FRAME_TOO_LARGE',
    message: /4294967295 bytes of standard error/,
  });
});

test('a frame of exactly the limit is taken', (t) => {
  t.is(new ReplyParser(16).push(reply('x'.repeat(16)))?.stdout.length, 16);
});

test('bytes after the end of a reply are an error, in the same piece or a later one', (t) => {
  t.throws(() => new ReplyParser(16).push(Buffer.concat([reply(), Buffer.from('x')])), {
    code: 'ERR_CHANNEL_PROTOCOL',
  });
  const parser = new ReplyParser(16);
  t.truthy(parser.push(reply()));
  t.throws(() => parser.push(Buffer.from('x')), { code: 'ERR_CHANNEL_PROTOCOL' });
});

test('a command carries its length in front, and one over the limit is refused', (t) => {
  t.deepEqual(encodeCommand(Buffer.from('ab'), 2), Buffer.from([0, 0, 0, 2, 97, 98]));
  t.throws(() => encodeCommand(Buffer.from('abc'), 2), { code: 'ERR_COMMAND_TOO_LARGE' });
});
