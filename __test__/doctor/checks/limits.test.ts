// Limits of the process.

import test from 'ava';

import { checkLimits } from '../../../src/doctor/checks/limits.ts';
import { says } from '../../helpers/says.ts';
import { type FakeHost } from '../../helpers/fake-host.ts';

const limits = (files: string, locked = '8388608'): FakeHost => ({
  texts: {
    '/proc/self/limits': `Max locked memory         ${locked}   x bytes\nMax open files            ${files}   x files\n`,
  },
});

test('enough open files pass', says, checkLimits, limits('1024'), 'open-files', 'pass', 'at most 1024');

test('no limit of open files passes', says, checkLimits, limits('unlimited'), 'open-files', 'pass', 'unlimited');

test('few open files are a warning', says, checkLimits, limits('64'), 'open-files', 'warn', 'at most 64');

test('the limit of locked memory is shown', says, checkLimits, limits('1024'), 'locked-memory', 'info', '8 MiB');

test('so is none', says, checkLimits, limits('1024', 'unlimited'), 'locked-memory', 'info', 'unlimited');
