// Help texts, made from the same tables that parse the options.

import { styleText } from 'node:util';

import type { OptionTable } from './arguments.ts';

/** What a help page shows of one command. */
export interface HelpPage {
  /** One sentence. */
  readonly summary: string;
  /** The words after `microvm`, such as `run [options] -- COMMAND`. */
  readonly usage: string;
  readonly commands?: Readonly<Record<string, string>>;
  readonly options: OptionTable;
  /** The command answers `--help` itself. */
  readonly printsOwnHelp?: boolean;
  /** Paragraphs or tables to print as they are, each under its heading. */
  readonly sections?: Readonly<Record<string, readonly string[]>>;
  /** Command lines with what they do. */
  readonly examples?: readonly (readonly [command: string, meaning: string])[];
}

/** A help page as text, styled for `stream`. */
export function renderHelp(page: HelpPage, stream: NodeJS.WriteStream): string {
  const bold = (text: string): string => styleText('bold', text, { stream });
  const dim = (text: string): string => styleText('dim', text, { stream });
  const heading = (text: string): string => `\n${bold(text)}`;
  const lines = [page.summary, heading('Usage'), `  microvm ${page.usage}`];

  if (page.commands) {
    lines.push(heading('Commands'), ...columns(Object.entries(page.commands)));
  }
  const options = Object.entries(page.options).map(([name, { short, value, help }]): [string, string] => [
    `${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`,
    help,
  ]);
  lines.push(heading('Options'), ...columns(options));
  for (const [title, body] of Object.entries(page.sections ?? {})) {
    lines.push(heading(title), ...body.map((line) => `  ${line}`));
  }
  if (page.examples) {
    lines.push(heading('Examples'));
    for (const [command, meaning] of page.examples) lines.push(`  ${command}`, `      ${dim(meaning)}`);
  }
  return `${lines.join('\n')}\n`;
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}
