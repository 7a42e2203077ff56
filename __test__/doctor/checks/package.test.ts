// The installed package.

import test from 'ava';

import { checkPackage } from '../../../src/doctor/checks/package.ts';
import { says } from '../../helpers/says.ts';

test('a package that is whole passes', says, checkPackage, {}, 'agent', 'pass', '/m/microvm-agent');
