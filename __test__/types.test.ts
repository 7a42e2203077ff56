// What the compiler says about the public types; a mistake here does not compile.

import test from 'ava';

import type { ExecOptions, ExecResult, GuestConsole, GuestProcess, MicroVM } from '../index.ts';

/** Only a value of exactly this type may be given. */
type Exactly<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const holds = <T extends true>(): T | undefined => undefined;

declare const vm: MicroVM;
declare const anyOptions: ExecOptions;
declare const perhapsBytes: { readonly encoding?: 'buffer' };
declare const perhaps: 'buffer' | undefined;

test('exec gives what its options are known to ask for, and either where they are not', (t) => {
  const text = () => vm.exec('x');
  const textWithOptions = () => vm.exec('x', [], { timeout: 1 });
  const asked = () => vm.exec('x', { encoding: 'utf8' });
  const bytes = () => vm.exec('x', { encoding: 'buffer' });
  const bytesOfList = () => vm.exec('x', ['y'], { encoding: 'buffer' });
  const unknown = () => vm.exec('x', anyOptions);
  const unknownOfList = () => vm.exec('x', [], anyOptions);
  const optional = () => vm.exec('x', perhapsBytes);
  const chosen = () => vm.exec('x', [], { encoding: perhaps });
  type Text = () => GuestProcess;
  type Bytes = () => GuestProcess<Buffer>;
  type Either = () => GuestProcess<string | Buffer>;
  holds<Exactly<typeof text, Text>>();
  holds<Exactly<typeof textWithOptions, Text>>();
  holds<Exactly<typeof asked, Text>>();
  holds<Exactly<typeof bytes, Bytes>>();
  holds<Exactly<typeof bytesOfList, Bytes>>();
  holds<Exactly<typeof unknown, Either>>();
  holds<Exactly<typeof unknownOfList, Either>>();
  holds<Exactly<typeof optional, Either>>();
  holds<Exactly<typeof chosen, Either>>();
  const awaited = async () => vm.exec('x');
  holds<Exactly<typeof awaited, () => Promise<ExecResult>>>();
  // @ts-expect-error -- a misspelt option is seen by the compiler
  const misspelt = () => vm.exec('x', [], { timeuot: 1 });
  t.is(typeof misspelt, 'function');
});

test('the console has its tail and its count of skipped bytes', (t) => {
  holds<Exactly<MicroVM['console'], GuestConsole>>();
  holds<Exactly<GuestConsole['tail'], string>>();
  holds<Exactly<GuestConsole['skippedBytes'], number>>();
  t.pass();
});
