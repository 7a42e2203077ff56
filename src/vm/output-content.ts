// An output as the result of a command gives it.

import type { ExecOptions } from './exec-options.ts';

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/** All of an output, as `encoding` and `stripFinalNewline` ask for. */
export function contentOf(
  output: Buffer,
  { encoding = 'utf8', stripFinalNewline = false }: Pick<ExecOptions, 'encoding' | 'stripFinalNewline'>,
): string | Buffer {
  const content = stripFinalNewline ? withoutFinalNewline(output) : output;
  return encoding === 'buffer' ? content : content.toString();
}

function withoutFinalNewline(output: Buffer): Buffer {
  if (output.at(-1) !== LINE_FEED) return output;
  return output.subarray(0, output.at(-2) === CARRIAGE_RETURN ? -2 : -1);
}
