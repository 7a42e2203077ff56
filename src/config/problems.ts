// Turns what a schema found wrong into the list that `ERR_INVALID_OPTIONS` carries.

import { inspect } from 'node:util';
import type { BaseIssue } from 'valibot';
import { MicroVMError, type OptionProblem, type OptionProblemCode } from '../errors.ts';
import { nearest } from './suggest.ts';

/** The options whose wrong values have a code of their own, wherever they are. */
const CODES: Readonly<Record<string, OptionProblemCode>> = { memory: 'ERR_MEMORY_SIZE', cpus: 'ERR_CPU_COUNT' };

function problem(
  path: readonly PropertyKey[],
  value: unknown,
  allowed: string,
  code = CODES[String(path.at(-1))] ?? codeOf(value),
  isName = false,
): OptionProblem {
  const isSecret = path[0] === 'env' && !isName;
  return { code, path: formatPath(path), value: isSecret ? kindOf(value) : show(value), allowed };
}

/** What is wrong with a value that has no code by its place. */
export function codeOf(value: unknown): OptionProblemCode {
  return typeof value === 'string' && value.includes('\0') ? 'ERR_NUL_BYTE' : 'ERR_OPTION_VALUE';
}

/** The problems behind a schema's issues; a union's own issue is replaced by those of the member that came nearest. */
export function problemsOf(
  issues: readonly BaseIssue<unknown>[],
  parent: readonly PropertyKey[] = [],
): OptionProblem[] {
  return issues.flatMap((issue) => {
    const path = [...parent, ...(issue.path ?? []).map(({ key }) => key as PropertyKey)];
    const inner = (issue.issues ?? []).filter(({ path: keys }) => keys !== undefined);
    if (inner.length > 0) return problemsOf(inner, path);
    const place = issue.path?.at(-1);
    const value = place?.origin === 'value' ? place.value : issue.input;
    return [problem(path, value, issue.message, undefined, place?.origin === 'key')];
  });
}

/** Options that do not exist, each with the one that was probably meant. */
export function unknownOptions(
  value: unknown,
  known: readonly string[],
  parent: readonly PropertyKey[] = [],
): OptionProblem[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value)
    .filter(([name]) => !known.includes(name))
    .map(([name, given]) => {
      const meant = nearest(name, known);
      const allowed = meant === undefined ? `one of ${known.join(', ')}` : `no such option; did you mean ${meant}?`;
      return problem([...parent, name], given, allowed, 'ERR_UNKNOWN_OPTION');
    });
}

/** One error for all problems. */
export function invalidOptions(problems: readonly OptionProblem[]): MicroVMError {
  const lines = problems.map(({ path, value, allowed }) => `${path}: ${value} is not allowed (${allowed})`);
  const message = lines.length === 1 ? `Invalid option ${lines[0]}` : `Invalid options:\n  ${lines.join('\n  ')}`;
  return new MicroVMError('ERR_INVALID_OPTIONS', message, { problems });
}

function formatPath(path: readonly PropertyKey[]): string {
  if (path.length === 0) return 'options';
  return path.map(formatKey).join('').replace(/^\./, '');
}

function formatKey(key: PropertyKey): string {
  if (typeof key === 'number') return `[${key}]`;
  const name = String(key);
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
}

/** A value as one would write it, shortened. */
export function show(value: unknown): string {
  const text = inspect(value, { depth: 1, breakLength: Infinity, maxArrayLength: 4, maxStringLength: 80 });
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** Values of environment variables may be secrets: only their kind is told. */
function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
