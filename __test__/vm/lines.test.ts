import { Readable } from 'node:stream';
import test from 'ava';
import fc from 'fast-check';

import { linesOf } from '../../src/vm/lines.ts';

test('lines are the same however the bytes are cut, characters of several bytes included', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('a', 'ü', '🎉', '\n', '\r\n', '')),
      fc.array(fc.nat({ max: 6 })),
      async (parts, cuts) => {
        const text = parts.join('');
        const pieces: Buffer[] = [];
        let rest = Buffer.from(text);
        for (const cut of cuts) {
          if (cut > 0 && rest.length > 0) pieces.push(rest.subarray(0, cut));
          rest = rest.subarray(cut);
        }
        if (rest.length > 0) pieces.push(rest);
        const lines: string[] = [];
        for await (const line of linesOf(Readable.from(pieces), 1000)) lines.push(line);
        const wanted = text.split('\n').map((line) => line.replace(/\r$/, ''));
        if (text === '' || text.endsWith('\n')) wanted.pop();
        t.deepEqual(lines, wanted);
      },
    ),
  );
});

test('a line over the limit is refused', async (t) => {
  await t.throwsAsync(linesOf(Readable.from([Buffer.from('long')]), 3).next(), { code: 'ERR_EXEC_MAX_BUFFER' });
});
