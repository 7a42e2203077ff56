// The machine and the kernel.

import test from 'ava';

import { checkPlatform } from '../../../src/doctor/checks/platform.ts';
import { says } from '../../helpers/says.ts';

test('the platform is named with its architecture', says, checkPlatform, {}, 'platform', 'info', 'Linux x86_64');

test('so is arm64', says, checkPlatform, { arch: 'aarch64' }, 'platform', 'info', 'Linux aarch64');

test('the kernel has its release', says, checkPlatform, {}, 'kernel', 'info', '6.1.0');
