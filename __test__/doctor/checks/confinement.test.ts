// What confinement is to be had.

import test from 'ava';

import { checkConfinement } from '../../../src/doctor/checks/confinement.ts';
import { says } from '../../helpers/says.ts';
import { ok, refused } from '../../helpers/fake-host.ts';

const seccomp = { '/proc/sys/kernel/seccomp/actions_avail': 'kill_process errno allow\n' };

test('seccomp that is there', says, checkConfinement, { texts: seccomp }, 'seccomp', 'info', 'available');

test(
  'seccomp under a filter',
  says,
  checkConfinement,
  { texts: { ...seccomp, '/proc/self/status': 'Seccomp:\t2\n' } },
  'seccomp',
  'info',
  /under a filter already/,
);

test('seccomp that is not', says, checkConfinement, {}, 'seccomp', 'info', /not in this kernel/);

test(
  'Landlock has a version',
  says,
  checkConfinement,
  { interfaces: { landlock: ok(4) } },
  'landlock',
  'info',
  'ABI version 4',
);

test(
  'Landlock that is switched off',
  says,
  checkConfinement,
  { interfaces: { landlock: refused('EOPNOTSUPP') } },
  'landlock',
  'info',
  'not available (EOPNOTSUPP)',
);

test(
  'capabilities are named',
  says,
  checkConfinement,
  { texts: { '/proc/self/status': 'CapEff:\t0000000000200002\n' } },
  'capabilities',
  'info',
  'some, with CAP_DAC_OVERRIDE, CAP_SYS_ADMIN',
);

test(
  'none are none',
  says,
  checkConfinement,
  { texts: { '/proc/self/status': 'CapEff:\t0000000000000000\n' } },
  'capabilities',
  'info',
  'none',
);

const namespaces = { '/proc/sys/user/max_user_namespaces': '100\n' };

const unshare = { unshare: '/usr/bin/unshare' };

test(
  'user namespaces that work',
  says,
  checkConfinement,
  { texts: namespaces, programs: unshare },
  'user-namespaces',
  'info',
  'available',
);

test(
  'user namespaces that AppArmor refuses',
  says,
  checkConfinement,
  {
    texts: { ...namespaces, '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1\n' },
    programs: unshare,
    run: async () => ({ code: 1, stdout: '' }),
  },
  'user-namespaces',
  'info',
  /apparmor_restrict_unprivileged_userns=1/,
);

test(
  'user namespaces that are switched off',
  says,
  checkConfinement,
  { texts: { '/proc/sys/user/max_user_namespaces': '0\n' } },
  'user-namespaces',
  'info',
  /max_user_namespaces=0/,
);
