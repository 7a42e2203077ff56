// The kernel for guests.

import test from 'ava';

import { checkGuestKernel } from '../../../src/doctor/checks/guest-kernel.ts';
import { says } from '../../helpers/says.ts';

const kernel = { image: '/k', release: '6.1', source: 'cache', modules: '/m', missingDrivers: undefined };

test('a guest kernel is shown', says, checkGuestKernel, {}, 'guest-kernel', 'pass', '6.1.0-cloud (/k/vmlinuz)');

test(
  'a guest kernel that is not found is a warning',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ code: 'ERR_KERNEL_NOT_FOUND', message: 'None', hint: 'Fetch' }) },
  'guest-kernel',
  'warn',
  'cannot be used (ERR_KERNEL_NOT_FOUND)',
);

test(
  'a guest kernel without drivers is a warning',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ ...kernel, missingDrivers: 'lacks virtio_mmio' }) },
  'guest-drivers',
  'warn',
  'missing',
);

test(
  'a guest kernel without modules may have all built in',
  says,
  checkGuestKernel,
  { guestKernel: async () => ({ ...kernel, modules: undefined }) },
  'guest-drivers',
  'info',
  /built in/,
);
