import test from 'ava';
import fc from 'fast-check';

import { groupGrants, judge, parseAcl } from '../../src/doctor/acl.ts';
import type { AclEntry } from '../../src/doctor/host.ts';
import { aclWith, ANN, kvmNode } from '../helpers/fake-host.ts';

const user = (id: number, permissions: number): AclEntry => ({ tag: 'user', id, permissions });

test('the layout of the kernel is read', (t) => {
  const value = Buffer.from(
    '0200000001000600ffffffff02000600e803000004000600ffffffff10000600ffffffff20000000ffffffff',
    'hex',
  );
  t.deepEqual(parseAcl(value), aclWith(user(1000, 6)));
});

test('a layout that is not known is not guessed at', (t) => {
  t.is(parseAcl(Buffer.from('0300000001000600ffffffff', 'hex')), undefined);
  t.is(parseAcl(Buffer.from('0200000040000600ffffffff', 'hex')), undefined);
  t.is(parseAcl(Buffer.alloc(0)), undefined);
});

test('whatever bytes there are, they are read or not known', (t) => {
  const entries = fc.array(fc.uint8Array({ minLength: 8, maxLength: 8 }), { maxLength: 4 });
  fc.assert(
    fc.property(entries, fc.uint8Array({ maxLength: 7 }), (whole, rest) => {
      const parsed = parseAcl(Buffer.concat([Buffer.from('02000000', 'hex'), ...whole, rest]));
      return parsed === undefined || parsed.length === whole.length;
    }),
  );
  t.pass();
});

const decides = test.macro<[Parameters<typeof judge>, Partial<ReturnType<typeof judge>>]>((t, given, expected) => {
  t.like(judge(...given), expected);
});
const member = { ...ANN, groups: [104] };

test('the group grants', decides, [kvmNode(), undefined, member], { granted: true, by: 'group' });
test('others are refused', decides, [kvmNode(), undefined, ANN], { granted: false, by: 'other' });
test('others are granted by 0666', decides, [kvmNode({ mode: 0o666 }), undefined, ANN], { granted: true, by: 'other' });
test('a group that is refused does not fall back to others', decides, [kvmNode({ mode: 0o606 }), undefined, member], {
  granted: false,
  by: 'group',
});
test('an owner is not asked for groups', decides, [kvmNode({ uid: 1000, mode: 0o060 }), undefined, member], {
  granted: false,
  by: 'owner',
});
test('an entry for the user grants', decides, [kvmNode(), aclWith(user(1000, 6)), ANN], {
  granted: true,
  by: 'user-entry',
});
test('an entry for the user denies what the group grants', decides, [kvmNode(), aclWith(user(1000, 0)), member], {
  granted: false,
  by: 'user-entry',
});
test('an entry for somebody else says nothing', decides, [kvmNode(), aclWith(user(7, 6)), ANN], {
  granted: false,
  by: 'other',
});
test('the mask takes away what an entry grants', decides, [kvmNode(), aclWith(user(1000, 6), { mask: 4 }), ANN], {
  granted: false,
  masked: true,
});
test('an entry for a group grants', decides, [kvmNode(), aclWith({ tag: 'group', id: 1000, permissions: 6 }), ANN], {
  granted: true,
  by: 'group-entry',
});

test("with a list, the mode's group bits are the mask and not the group's rights", (t) => {
  t.true(groupGrants(kvmNode(), undefined));
  t.false(groupGrants(kvmNode({ mode: 0o660 }), aclWith(user(7, 6), { group: 0 })));
  t.false(groupGrants(kvmNode({ mode: 0o640 }), aclWith(user(7, 6), { group: 6, mask: 4 })));
});
