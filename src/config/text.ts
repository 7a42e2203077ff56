/** Text that can be handed to a kernel: no NUL, no half of a surrogate pair. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && !/[\0\p{Surrogate}]/u.test(value);
}

/** A name that every shell can export. */
export function isEnvironmentName(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(value);
}

export const ENVIRONMENT_NAME_RULE = 'a name of letters, digits and _, no digit first';
export const TEXT_RULE = 'text without NUL or broken Unicode';
