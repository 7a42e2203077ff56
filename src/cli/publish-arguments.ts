// `--publish [ADDRESS:]HOST:GUEST`, as the option `ports` of `MicroVM.create`.

import type { ForwardOptions } from '../config/options.ts';
import { UsageError } from './arguments.ts';

/** A number or a path that is told from one by its slash, behind it the same in the guest, before it perhaps an address. */
const PUBLISHED = /^(?:(?<address>\[[^\]]+\]|[^:/[\]]+):)?(?<host>\d+|[^:]*\/[^:]*):(?<guest>\d+|\/[^:]*)$/s;

/** The ports of all `--publish` options; what their values may be is checked with the other options. */
export function publishedPorts(given: readonly string[]): ForwardOptions[] {
  return given.map((text) => {
    const { address, host = '', guest = '' } = PUBLISHED.exec(text)?.groups ?? {};
    if (host === '') throw new UsageError(`--publish takes [ADDRESS:]HOST:GUEST, such as 8080:80, not '${text}'`);
    return {
      guest: numberOr(guest),
      host: numberOr(host),
      ...(address !== undefined && { hostAddress: address.replace(/^\[|\]$/g, '') }),
    };
  });
}

function numberOr(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text;
}
