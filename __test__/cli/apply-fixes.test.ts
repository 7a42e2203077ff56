// What `--fix` does with the ways to root's rights that there are; nothing here runs anything.

import { PassThrough, Readable } from 'node:stream';
import test from 'ava';

import { applyFixes } from '../../src/cli/apply-fixes.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import type { TextStyle } from '../../src/doctor/text.ts';
import { ANN, fakeHost } from '../helpers/fake-host.ts';

const style: TextStyle = {
  paint: (_, text) => text,
  symbols: false,
  quiet: false,
  line: ({ argv }) => argv.join(' '),
};

async function offered(programs: readonly string[], uid: number): Promise<string> {
  const broken = { identity: ANN, openErrors: { '/dev/kvm': 'EACCES' }, group: 'kvm:x:104:\n' };
  const output = new PassThrough();
  const host = {
    identity: { ...ANN, uid },
    program: (name: string) => (programs.includes(name) ? `/bin/${name}` : undefined),
  };
  const report = await diagnose(fakeHost(broken));
  await applyFixes(report, { host, assumeYes: false, style, output, input: Readable.from(['n\n']) });
  return String(output.read());
}

test('sudo is taken where it is there', async (t) => {
  t.regex(await offered(['sudo', 'pkexec'], 1000), /^ {6}sudo usermod -aG kvm ann$/m);
});

test('pkexec is taken where there is no sudo, and shown', async (t) => {
  t.regex(
    await offered(['pkexec'], 1000),
    /^ {6}pkexec usermod -aG kvm ann\n {6}pkexec setfacl -m u:ann:rw \/dev\/kvm$/m,
  );
});

test('pkexec is given the path of a program that root has, not everybody', async (t) => {
  t.regex(await offered(['pkexec', 'usermod'], 1000), /^ {6}pkexec \/bin\/usermod -aG kvm ann$/m);
});

test('su gets the whole command as one word, where there is nothing else', async (t) => {
  t.regex(await offered(['su'], 1000), /^ {6}su -c 'usermod -aG kvm ann'$/m);
});

test('root needs neither', async (t) => {
  t.regex(await offered([], 0), /^ {6}usermod -aG kvm ann$/m);
});

test('without a way to root nothing is offered', async (t) => {
  const text = await offered([], 1000);
  t.regex(text, /mending it takes root, and there is neither sudo, pkexec nor su/);
  t.notRegex(text, /run this/);
});
