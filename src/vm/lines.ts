// Lines of a stream of bytes, as UTF-8.

import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { MicroVMError } from '../errors.ts';

/** The lines, without their ends (`\n` or `\r\n`); what follows the last one counts as a line where it is not empty. */
export async function* linesOf(stream: Readable, maxBytes: number): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8');
  let rest: string[] = [];
  let restLength = 0;
  for await (const piece of stream as AsyncIterable<Buffer>) {
    const [first = '', ...others] = decoder.write(piece).split('\n');
    rest.push(first);
    restLength += first.length;
    if (restLength > maxBytes) {
      throw new MicroVMError('ERR_EXEC_MAX_BUFFER', `A line of the command's output is longer than ${maxBytes} bytes`);
    }
    if (others.length === 0) continue;
    yield withoutReturn(rest.join(''));
    const last = others.pop() ?? '';
    for (const line of others) yield withoutReturn(line);
    rest = [last];
    restLength = last.length;
  }
  const last = rest.join('') + decoder.end();
  if (last !== '') yield withoutReturn(last);
}

function withoutReturn(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line;
}
