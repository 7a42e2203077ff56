// The two sides of `microvm cp`: a path here, a path in a machine, or a tar stream.

import { UsageError } from './arguments.ts';

/** One side of a copy. */
export type Place =
  | { readonly kind: 'stream' }
  | { readonly kind: 'host'; readonly path: string }
  | { readonly kind: 'guest'; readonly machine: string; readonly path: string };

/** Into a machine or out of one. */
export type Copy =
  | { readonly to: 'guest'; readonly source: Exclude<Place, { kind: 'guest' }>; readonly guest: GuestPlace }
  | { readonly to: 'host'; readonly target: Exclude<Place, { kind: 'guest' }>; readonly guest: GuestPlace };

type GuestPlace = Extract<Place, { kind: 'guest' }>;

/** `NAME:PATH` is a path in a machine; one of this host that looks so is written with `./`. */
export function placeOf(text: string): Place {
  if (text === '-') return { kind: 'stream' };
  const [, machine, path] = /^([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)$/s.exec(text) ?? [];
  if (machine === undefined || path === undefined) return { kind: 'host', path: text };
  if (path === '') throw new UsageError(`${text} has no path behind its colon`, `${text}/`);
  return { kind: 'guest', machine, path };
}

/** The copy that two words ask for. */
export function copyOf(words: readonly string[]): Copy {
  const [source, target, more] = words;
  if (source === undefined || target === undefined)
    throw new UsageError('cp takes a source and a target', 'microvm cp SRC NAME:DST');
  if (more !== undefined) throw new UsageError(`Unexpected word '${more}'`);
  if (source === '' || target === '') throw new UsageError('A path is empty');
  const [from, to] = [placeOf(source), placeOf(target)];
  if (from.kind === 'guest' && to.kind === 'guest') {
    throw new UsageError('cp does not copy from machine to machine', `microvm cp ${source} - | microvm cp - ${target}`);
  }
  if (to.kind === 'guest' && from.kind !== 'guest') return { to: 'guest', source: from, guest: to };
  if (from.kind === 'guest' && to.kind !== 'guest') return { to: 'host', target: to, guest: from };
  throw new UsageError('Neither side is in a machine', `microvm cp ${source} NAME:${target}`);
}
