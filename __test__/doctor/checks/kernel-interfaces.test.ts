// Interfaces that are tried, and huge pages.

import test from 'ava';

import { checkKernelInterfaces } from '../../../src/doctor/checks/kernel-interfaces.ts';
import { says } from '../../helpers/says.ts';
import { refused } from '../../helpers/fake-host.ts';

test(
  'userfaultfd that is refused',
  says,
  checkKernelInterfaces,
  { interfaces: { userfaultfd: refused('EPERM') } },
  'userfaultfd',
  'info',
  'refused (EPERM)',
);

test(
  'io_uring without the addon',
  says,
  checkKernelInterfaces,
  { tryInterface: () => undefined },
  'io-uring',
  'info',
  /without the addon/,
);

test(
  'huge pages are counted',
  says,
  checkKernelInterfaces,
  { texts: { '/proc/meminfo': 'HugePages_Free: 7\nHugepagesize: 2048 kB\n' } },
  'huge-pages',
  'info',
  '7 of 2 MiB free',
);
