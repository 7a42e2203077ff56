// A report as people read it.

import test from 'ava';

import { diagnose } from '../../src/doctor/doctor.ts';
import { renderReport, type TextStyle } from '../../src/doctor/text.ts';
import { ANN, type FakeHost, fakeHost } from '../helpers/fake-host.ts';

const plain: TextStyle = {
  paint: (_, text) => text,
  symbols: false,
  quiet: false,
  line: ({ argv, sudo }) => [...(sudo ? ['sudo'] : []), ...argv].join(' '),
};
const broken: FakeHost = {
  identity: ANN,
  openErrors: { '/dev/kvm': 'EACCES' },
  group: 'kvm:x:104:\n',
  programs: { 'qemu-system-x86_64': '' },
};

async function rendered(different: FakeHost, style: Partial<TextStyle> = {}): Promise<string> {
  return renderReport(await diagnose(fakeHost(different)), { ...plain, ...style });
}

test('the values of all checks begin in one column', async (t) => {
  const lines = (await rendered({})).split('\n').filter((line) => /^ {2}\[\w+\]/.test(line));
  t.true(lines.length > 20);
  const columns = lines.map((line) => /^ {2}\[\w+\] +(?:\S+ )*\S+ {2,}/.exec(line)?.[0].length);
  t.is(new Set(columns).size, 1, lines.join('\n'));
});

test('a problem has its cause, its fix, its commands with sudo, and the new login', async (t) => {
  const text = await rendered(broken);
  t.true(
    text.includes(
      [
        '  /dev/kvm is not accessible by ann',
        "    - /dev/kvm is owned by group 'kvm', which your user is not in",
        "    fix: add ann to the 'kvm' group and grant access now",
        '      sudo usermod -aG kvm ann',
        '      sudo setfacl -m u:ann:rw /dev/kvm',
        '      then log out and in again: groups are read at login',
      ].join('\n'),
    ),
    text,
  );
  t.regex(text, /sudo apt-get install -y qemu-system-x86/);
  t.regex(
    text,
    /microVMs cannot run here: \/dev\/kvm is not accessible by ann, and qemu-system-x86_64 was not found\n$/,
  );
});

test('who asks about one accelerator reads nothing of how to mend the other', async (t) => {
  const both = { ...broken, programs: { 'qemu-system-x86_64': '' } };
  const about = async (accelerator: 'kvm' | 'tcg'): Promise<string> =>
    renderReport(await diagnose(fakeHost(both), { accelerator }), plain);
  t.regex(await about('kvm'), /usermod -aG kvm ann/);
  t.notRegex(await about('kvm'), /install -y qemu/);
  t.regex(await about('tcg'), /install -y qemu/);
  t.notRegex(await about('tcg'), /usermod/);
});

test('a terminal gets signs and colours, anything else words', async (t) => {
  const styled = await rendered(broken, { symbols: true, paint: (style, text) => `<${style}>${text}</>` });
  t.regex(styled, /<red>✗<\/> KVM access/);
  t.regex(styled, /<yellow>!<\/> QEMU/);
  t.regex(styled, /<green>✓<\/> Guest kernel/);
  const text = await rendered(broken);
  t.regex(text, /\[fail\] KVM access +permission denied/);
  t.notRegex(text, /[✓✗]/);
});

test('quiet leaves out what is well, and ends with the conclusion', async (t) => {
  const text = await rendered({ programs: { 'qemu-system-x86_64': '' } }, { quiet: true });
  t.notRegex(text, /\[pass\]|\[info\]/);
  t.regex(text, /\[warn\] QEMU/);
  t.regex(text, /microVMs run here by kvm: \/dev\/kvm runs guest kernels natively\n$/);
});
