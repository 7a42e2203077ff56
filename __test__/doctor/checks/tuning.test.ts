// Settings that cost time or let guests watch each other.

import test from 'ava';

import { checkTuning } from '../../../src/doctor/checks/tuning.ts';
import { says } from '../../helpers/says.ts';

const nx = '/sys/module/kvm/parameters/nx_huge_pages';

for (const value of ['Y', 'N']) {
  test(
    `nx_huge_pages with ${value} is a note`,
    says,
    checkTuning,
    { texts: { [nx]: `${value}\n` } },
    'nx-huge-pages',
    'info',
    new RegExp(`^${value}: creating a machine`),
  );
}

test(
  'nx_huge_pages with never passes',
  says,
  checkTuning,
  { texts: { [nx]: 'never\n' } },
  'nx-huge-pages',
  'pass',
  /never/,
);

test(
  'nx_huge_pages with favordynmods passes',
  says,
  checkTuning,
  {
    texts: { [nx]: 'Y\n', '/proc/self/mountinfo': '1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,favordynmods\n' },
  },
  'nx-huge-pages',
  'pass',
  /favordynmods is on/,
);

test('no such setting is none', says, checkTuning, {}, 'nx-huge-pages', 'info', /not a setting/);

test(
  'SMT is a note',
  says,
  checkTuning,
  { texts: { '/sys/devices/system/cpu/smt/active': '1\n' } },
  'smt',
  'info',
  /^on: guests/,
);

test('KSM is a note', says, checkTuning, { texts: { '/sys/kernel/mm/ksm/run': '1\n' } }, 'ksm', 'info', /^on: guests/);

test(
  'swap is a note',
  says,
  checkTuning,
  { texts: { '/proc/swaps': 'Filename Type\n/dev/sda2 partition 1 0 -2\n' } },
  'swap',
  'info',
  /^on: memory/,
);

test('no swap is none', says, checkTuning, { texts: { '/proc/swaps': 'Filename Type\n' } }, 'swap', 'info', 'none');

test(
  'favordynmods is read off the mount',
  says,
  checkTuning,
  { texts: { '/proc/self/mountinfo': '1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,favordynmods\n' } },
  'favordynmods',
  'info',
  'on',
);
