// What a diagnosis is made of. Plain data all through, so that one report is text, JSON and an API alike.

/** How a check ended: `info` judges nothing, `warn` leaves something slow or missing, `fail` stands in the way. */
export type CheckStatus = 'info' | 'pass' | 'warn' | 'fail';

/** One thing that was looked at. */
export interface Check {
  /** Stable name, such as `kvm-access`. */
  readonly id: string;
  /** What was looked at, in a word or two. */
  readonly label: string;
  readonly status: CheckStatus;
  /** What was found, in one line. */
  readonly value: string;
}

/** A command that belongs to a fix. */
export interface FixCommand {
  /** The program and its arguments, not quoted. */
  readonly argv: readonly string[];
  /** Whether it takes root's rights. */
  readonly sudo: boolean;
}

/** A way out of a problem. */
export interface Fix {
  /** What it does, in the imperative. */
  readonly description: string;
  /** To be run in this order. Empty where it is done elsewhere: in the firmware, on the host of a container. */
  readonly commands: readonly FixCommand[];
  /** Whether it takes effect for new logins only. */
  readonly needsRelogin: boolean;
}

/** Something that is wrong. */
export interface Problem {
  /** Stable name, such as `kvm-permission`. */
  readonly id: string;
  /** `id` of the check that found it. */
  readonly check: string;
  readonly title: string;
  /** Why, the likeliest first; one where it is known. */
  readonly causes: readonly string[];
  readonly fixes: readonly Fix[];
}

/** Checks that belong together, with the problems that they found. */
export interface Section {
  readonly title: string;
  readonly checks: readonly Check[];
  readonly problems: readonly Problem[];
}

/** What one check file found out. */
export interface Finding {
  readonly checks: readonly Check[];
  readonly problems: readonly Problem[];
}

/** A finding of a single check without problems. */
export function found(id: string, label: string, status: CheckStatus, value: string): Finding {
  return { checks: [{ id, label, status, value }], problems: [] };
}

/** Several findings as one. */
export function together(...findings: readonly Finding[]): Finding {
  return {
    checks: findings.flatMap(({ checks }) => checks),
    problems: findings.flatMap(({ problems }) => problems),
  };
}

/** A command that takes root's rights. */
export function asRoot(...argv: readonly string[]): FixCommand {
  return { argv, sudo: true };
}

/** A fix that takes effect at once. */
export function fix(description: string, ...commands: readonly FixCommand[]): Fix {
  return { description, commands, needsRelogin: false };
}
