// What a check says in one line.

import test, { type Macro } from 'ava';

import type { Context } from '../../src/doctor/context.ts';
import type { CheckStatus, Finding } from '../../src/doctor/model.ts';
import { contextOf, type FakeHost } from './fake-host.ts';

type Check = (context: Context) => Finding | Promise<Finding>;
type Line = [check: Check, different: FakeHost, id: string, status: CheckStatus, value: string | RegExp];

/** One line of a check on a host that differs from the healthy one. */
export const says: Macro<Line> = test.macro<Line>(async (t, check, different, id, status, value) => {
  const { checks, problems } = await check(await contextOf(different));
  const found = checks.find((each) => each.id === id);
  t.is(found?.status, status);
  if (typeof value === 'string') t.is(found?.value, value);
  else t.regex(found?.value ?? '', value);
  t.is(
    problems.some((problem) => problem.check === id),
    status === 'warn' || status === 'fail',
    'what is wrong has a problem, and what is not has none',
  );
});
