// How the command line shows a failure: what happened, why, what to do, what the guest last said.

import { styleText } from 'node:util';

import { MicroVMError } from '../errors.ts';
import { UsageError } from './arguments.ts';

/** A failure as plain data, for `--json`. */
export function errorAsData(error: unknown): Record<string, unknown> {
  if (error instanceof MicroVMError) {
    const { code, message, hint, problems, lookedAt, consoleTail } = error;
    return { code, message, hint, problems, lookedAt, consoleTail };
  }
  if (error instanceof UsageError) {
    return { code: 'ERR_USAGE', message: error.message, hint: usageHint(error) };
  }
  return { code: 'ERR_UNEXPECTED', message: error instanceof Error ? error.message : String(error) };
}

/** A failure as text for a person, styled for `stream`. */
export function errorAsText(error: unknown, stream: NodeJS.WriteStream): string {
  const red = styleText('red', 'microvm:', { stream });
  const dim = (text: string): string => styleText('dim', text, { stream });
  if (error instanceof UsageError) {
    return `${red} ${error.message}\n  ${usageHint(error)}\n`;
  }
  if (!(error instanceof MicroVMError)) {
    // Not one of ours: a defect, so show where it comes from.
    return `${red} ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`;
  }
  const lines = [`${red} ${error.message} ${dim(`(${error.code})`)}`];
  if (error.hint !== undefined) lines.push(`  ${error.hint}`);
  if (error.consoleTail !== undefined && error.consoleTail.trim() !== '') {
    lines.push(dim('  the guest console ended with:'));
    for (const line of error.consoleTail.trimEnd().split('\n').slice(-15)) {
      lines.push(dim(`  | ${line.trimEnd()}`));
    }
  }
  return `${lines.join('\n')}\n`;
}

function usageHint({ suggestion }: UsageError): string {
  return suggestion === undefined ? 'See microvm --help' : `Did you mean ${suggestion}? See microvm --help`;
}
