// A report as text: sections with aligned lines, then each problem with its ways out.

import type { DoctorReport } from './doctor.ts';
import type { Check, CheckStatus, Fix, FixCommand, Problem } from './model.ts';

/** How to write for the reader at hand. */
export interface TextStyle {
  /** Marks words, or gives them back as they are. */
  readonly paint: (style: 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'blue', text: string) => string;
  /** Signs instead of words for the status. */
  readonly symbols: boolean;
  /** Only what is wrong, and the conclusion. */
  readonly quiet: boolean;
  /** A command as the reader would type it. */
  readonly line: (command: FixCommand) => string;
}

const SIGNS: Readonly<Record<CheckStatus, string>> = { info: '·', pass: '✓', warn: '!', fail: '✗' };
const COLOURS = { info: 'dim', pass: 'green', warn: 'yellow', fail: 'red' } as const;

/** The whole report, with a newline at its end. */
export function renderReport(report: DoctorReport, style: TextStyle): string {
  const { sections, verdict } = report;
  const shown = sections
    .map(({ title, checks }) => ({ title, checks: checks.filter((check) => !style.quiet || isBad(check)) }))
    .filter(({ checks }) => checks.length > 0);
  const width = Math.max(0, ...shown.flatMap(({ checks }) => checks.map(({ label }) => label.length)));
  const parts = shown.map(({ title, checks }) =>
    [style.paint('bold', title), ...checks.map((check) => renderCheck(check, width, style))].join('\n'),
  );
  const problems = problemsOf(report);
  if (problems.length > 0) {
    parts.push(
      [style.paint('bold', 'What can be done'), ...problems.map((each) => renderProblem(each, style))].join('\n'),
    );
  }
  // The last section has said so already, unless it is left out.
  if (style.quiet || verdict.auto === undefined || report.accelerator !== 'auto') parts.push(conclusion(report));
  return `${parts.join('\n\n')}\n`;
}

/** The problems that stand in the way of what was asked about: of two accelerators, the other one's are left out. */
export function problemsOf({ accelerator, sections }: DoctorReport): readonly Problem[] {
  const other = { auto: undefined, kvm: 'Emulation', tcg: 'KVM' }[accelerator];
  return sections.filter(({ title }) => title !== other).flatMap(({ problems }) => problems);
}

/** The outcome in one line. */
export function conclusion({ accelerator, ok, verdict }: DoctorReport): string {
  if (accelerator !== 'auto') {
    const { reason } = verdict[accelerator];
    return ok
      ? `microVMs can run here by ${accelerator}: ${reason}`
      : `microVMs cannot run here by ${accelerator}: ${reason}`;
  }
  if (verdict.auto === undefined) return `microVMs cannot run here: ${verdict.reason}`;
  return `microVMs run here by ${verdict.auto}${verdict.auto === 'tcg' ? ' (slow)' : ''}: ${verdict.reason}`;
}

/** A fix as indented lines: what it does, and what to type. */
export function renderFix(
  { description, commands, needsRelogin }: Fix,
  style: Pick<TextStyle, 'paint' | 'line'>,
): string[] {
  return [
    `    ${style.paint('blue', 'fix:')} ${description}`,
    ...commands.map((command) => `      ${style.paint('bold', style.line(command))}`),
    ...(needsRelogin ? [style.paint('dim', '      then log out and in again: groups are read at login')] : []),
  ];
}

function renderCheck({ status, label, value }: Check, width: number, { paint, symbols }: TextStyle): string {
  const mark = symbols ? SIGNS[status] : `[${status}]`.padEnd(6);
  return `  ${paint(COLOURS[status], mark)} ${label.padEnd(width)}  ${value}`;
}

function renderProblem({ title, causes, fixes }: Problem, style: TextStyle): string {
  return [
    `  ${title}`,
    ...causes.map((cause) => `    - ${cause}`),
    ...fixes.flatMap((each) => renderFix(each, style)),
  ].join('\n');
}

function isBad({ status }: Check): boolean {
  return status === 'warn' || status === 'fail';
}
