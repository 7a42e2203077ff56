const UNITS: Readonly<Record<string, number>> = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

/** The bytes that `'256MiB'`, `'1GiB'` or a number of bytes mean; undefined for anything else. */
export function parseMemorySize(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : undefined;
  if (typeof value !== 'string') return undefined;
  const [, digits = '', unit] = /^(\d{1,15}(?:\.\d{1,6})?) ?(KiB|MiB|GiB)?$/.exec(value) ?? [];
  const bytes = Number(digits) * (unit === undefined ? 1 : (UNITS[unit] ?? Number.NaN));
  return digits !== '' && Number.isSafeInteger(bytes) ? bytes : undefined;
}
