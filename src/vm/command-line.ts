export interface CommandLineRequest {
  readonly file: string;
  readonly args?: readonly string[];
  /** As with node:child_process: `file` is a line for the shell; a string names the shell. */
  readonly shell?: boolean | string | undefined;
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

export interface CommandLine {
  /** One line (or lines) for `/bin/sh -c`. */
  readonly line: string;
  /** What to call the command in messages: as one would type it, without env. */
  readonly display: string;
  /** What `cd` said when the working folder could not be entered; undefined when the command did run. */
  readonly cwdFailure: (reply: { readonly stderr: string; readonly exitCode: number }) => string | undefined;
}

/** Turns argv, cwd and env into one POSIX-quoted command line. Throws `ERR_INVALID_OPTIONS`. */
export function commandLine(_request: CommandLineRequest): CommandLine {
  throw new Error('Not written yet');
}
