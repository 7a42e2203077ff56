import test from 'ava';
import fc from 'fast-check';

import { OutputFrameParser, type OutputKind } from '../../src/guest-api/output-frames.ts';

function frame(kind: number, content: Uint8Array): Buffer {
  const header = Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt32BE(content.length, 4);
  return Buffer.concat([header, content]);
}

const frames = fc.array(fc.tuple(fc.constantFrom<OutputKind>(1, 2), fc.uint8Array({ maxLength: 40 })));

test('any frames, cut anywhere, give each output its bytes in order', (t) => {
  fc.assert(
    fc.property(frames, fc.array(fc.nat({ max: 60 })), (sent, cuts) => {
      const bytes = Buffer.concat(sent.map(([kind, content]) => frame(kind, content)));
      const got: Record<OutputKind, Buffer[]> = { 1: [], 2: [] };
      const parser = new OutputFrameParser((kind, piece) => got[kind].push(piece));
      let rest = bytes;
      for (const cut of cuts) {
        parser.push(rest.subarray(0, cut));
        rest = rest.subarray(cut);
      }
      parser.push(rest);
      t.true(parser.isBetweenFrames);
      for (const kind of [1, 2] as const) {
        const wanted = Buffer.concat(sent.filter(([own]) => own === kind).map(([, content]) => content));
        t.deepEqual(Buffer.concat(got[kind]), wanted);
      }
    }),
  );
});

test('a body that ends within a frame is told from one that ends between two', (t) => {
  const whole = Buffer.concat([frame(1, Buffer.from('out')), frame(2, Buffer.alloc(0)), frame(2, Buffer.from('err'))]);
  const ends = new Set([0, 11, 19, whole.length]);
  for (let length = 0; length <= whole.length; length += 1) {
    const parser = new OutputFrameParser(() => {});
    parser.push(whole.subarray(0, length));
    t.is(parser.isBetweenFrames, ends.has(length), `${length} bytes`);
  }
});

test('any bytes at all are taken or refused with a code, and nothing of them is kept', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      let handed = 0;
      const parser = new OutputFrameParser((_, piece) => (handed += piece.length));
      try {
        parser.push(Buffer.from(bytes));
      } catch (error) {
        t.like(error, { code: 'ERR_AGENT_PROTOCOL' });
      }
      t.true(handed <= bytes.length);
    }),
  );
});

for (const [what, header] of [
  ['of another kind', [3, 0, 0, 0, 0, 0, 0, 1]],
  ['with other bytes where zeroes belong', [1, 0, 1, 0, 0, 0, 0, 1]],
  ['that is longer than any', [1, 0, 0, 0, 1, 0, 0, 1]],
] as const) {
  test(`a frame ${what} is refused`, (t) => {
    t.throws(() => new OutputFrameParser(() => {}).push(Buffer.from(header)), { code: 'ERR_AGENT_PROTOCOL' });
  });
}
