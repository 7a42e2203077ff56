// What the compiler says about the public types; a mistake here does not compile.

import test from 'ava';

import type {
  ExecOptions,
  ExecResult,
  FileContent,
  GuestConsole,
  GuestDirent,
  GuestProcess,
  MicroVM,
  MkdirOptions,
  ReaddirOptions,
  ReadFileOptions,
  RmOptions,
} from '../index.ts';

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
  const otherName = () => vm.exec('x', [], { encoding: 'utf-8' });
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
  holds<Exactly<typeof otherName, Text>>();
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

test('files are read as what their options are known to ask for, and as either where they are not', (t) => {
  const bytes = () => vm.fs.readFile('/x');
  const text = () => vm.fs.readFile('/x', 'utf8');
  const asked = () => vm.fs.readFile('/x', { encoding: 'utf-8' });
  const limited = () => vm.fs.readFile('/x', { maxBytes: 1 });
  const unknown = (options: ReadFileOptions) => vm.fs.readFile('/x', options);
  const chosen = (encoding: 'utf8' | null) => vm.fs.readFile('/x', encoding);
  holds<Exactly<typeof bytes, () => Promise<Buffer>>>();
  holds<Exactly<typeof text, () => Promise<string>>>();
  holds<Exactly<typeof asked, () => Promise<string>>>();
  holds<Exactly<typeof limited, () => Promise<Buffer>>>();
  holds<Exactly<typeof unknown, (options: ReadFileOptions) => Promise<string | Buffer>>>();
  holds<Exactly<typeof chosen, (encoding: 'utf8' | null) => Promise<string | Buffer>>>();
  // @ts-expect-error -- there are no other encodings
  const other = () => vm.fs.readFile('/x', 'latin1');
  t.is(typeof other, 'function');
});

test('folders are read as names, as entries, or as either', (t) => {
  const names = () => vm.fs.readdir('/x');
  const below = () => vm.fs.readdir('/x', { recursive: true });
  const entries = () => vm.fs.readdir('/x', { withFileTypes: true, recursive: true });
  const unknown = (options: ReaddirOptions) => vm.fs.readdir('/x', options);
  const chosen = (withFileTypes: boolean) => vm.fs.readdir('/x', { withFileTypes });
  holds<Exactly<typeof names, () => Promise<string[]>>>();
  holds<Exactly<typeof below, () => Promise<string[]>>>();
  holds<Exactly<typeof entries, () => Promise<GuestDirent[]>>>();
  holds<Exactly<typeof unknown, (options: ReaddirOptions) => Promise<string[] | GuestDirent[]>>>();
  holds<Exactly<typeof chosen, (withFileTypes: boolean) => Promise<string[] | GuestDirent[]>>>();
  t.pass();
});

test('options and contents of files have names', (t) => {
  const mkdir = (options: MkdirOptions) => vm.fs.mkdir('/x', options);
  const rm = (options: RmOptions) => vm.fs.rm('/x', options);
  const write = (content: FileContent) => vm.fs.writeFile('/x', content);
  const mixed = (): FileContent => ['text', Buffer.from('bytes')];
  const appending = () => vm.fs.createWriteStream('/x', { flags: 'a' });
  // @ts-expect-error -- for streams Node's name is flags
  const misnamed = () => vm.fs.createWriteStream('/x', { flag: 'a' });
  for (const use of [mkdir, rm, write, mixed, appending, misnamed]) t.is(typeof use, 'function');
});

test('the console has its tail and its count of skipped bytes', (t) => {
  holds<Exactly<MicroVM['console'], GuestConsole>>();
  holds<Exactly<GuestConsole['tail'], string>>();
  holds<Exactly<GuestConsole['skippedBytes'], number>>();
  t.pass();
});
