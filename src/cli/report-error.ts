// How the command line shows a failure: what happened, why, what to do, what the guest last said.

import { getSystemErrorName, styleText } from 'node:util';

import { MicroVMError } from '../errors.ts';
import { UsageError } from './arguments.ts';

/** A failure as plain data, for `--json`. `command` is the one whose help page explains a usage error. */
export function errorAsData(error: unknown, command?: string): Record<string, unknown> {
  if (error instanceof MicroVMError) {
    const { code, message, hint, problems, lookedAt, consoleTail } = error;
    return { code, ...systemFailure(error.cause), message, hint, problems, lookedAt, consoleTail };
  }
  if (error instanceof UsageError) {
    return { code: 'ERR_USAGE', message: error.message, hint: usageHint(error, command) };
  }
  return { code: 'ERR_UNEXPECTED', message: error instanceof Error ? error.message : String(error) };
}

/** A failure as text for a person, styled for `stream`. `command` is as in {@link errorAsData}. */
export function errorAsText(error: unknown, stream: NodeJS.WriteStream, command?: string): string {
  const red = styleText('red', 'microvm:', { stream });
  const dim = (text: string): string => styleText('dim', text, { stream });
  if (error instanceof UsageError) {
    return `${red} ${error.message}\n  ${usageHint(error, command)}\n`;
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

/** The refusal underneath, of this host's kernel or of a guest's: the name of its errno, and the path that it is about. */
function systemFailure(cause: unknown): { readonly errno?: string; readonly path?: string } {
  if (!(cause instanceof Error)) return {};
  const { code, errno, path } = cause as NodeJS.ErrnoException;
  // The addon's have a code of this package and the number, which is not below zero as Node's are.
  const number = errno ? getSystemErrorName(-Math.abs(errno)) : undefined;
  const name = code !== undefined && /^E[A-Z\d]+$/.test(code) ? code : number;
  return { ...(name !== undefined && { errno: name }), ...(path !== undefined && { path }) };
}

function usageHint({ suggestion }: UsageError, command: string | undefined): string {
  const page = `See microvm ${command === undefined ? '' : `${command} `}--help`;
  return suggestion === undefined ? page : `Did you mean ${suggestion}? ${page}`;
}
