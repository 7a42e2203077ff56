import test from 'ava';

import { type OptionTable, parseArguments, UsageError } from '../../src/cli/arguments.ts';

const table = {
  interactive: { type: 'boolean', short: 'i', help: '' },
  memory: { type: 'string', value: 'SIZE', help: '' },
  env: { type: 'string', multiple: true, value: 'K=V', help: '' },
} as const satisfies OptionTable;

test('words after -- are the command, options and all', (t) => {
  const given = parseArguments(['-i', '--', 'sh', '-c', '--memory'], table);
  t.true(given.flag('interactive'));
  t.deepEqual(given.rest, ['sh', '-c', '--memory']);
  t.is(given.text('memory'), undefined);
});

test('the first word that is no option starts the command', (t) => {
  const given = parseArguments(['--memory=1GiB', 'ls', '-i', '--', 'x'], table);
  t.deepEqual(given.rest, ['ls', '-i', '--', 'x']);
  t.false(given.flag('interactive'));
  t.is(given.text('memory'), '1GiB');
});

test('an option that is given twice keeps its last value, a repeatable one all', (t) => {
  const given = parseArguments(['--memory', '1', '--memory', '2', '--env', 'A=1', '--env=B=2'], table);
  t.is(given.text('memory'), '2');
  t.deepEqual(given.texts('env'), ['A=1', 'B=2']);
});

test('an unknown option is refused with the right one suggested', (t) => {
  const error = t.throws(() => parseArguments(['--memroy', '1GiB'], table), { instanceOf: UsageError });
  t.is(error.message, 'Unknown option --memroy');
  t.is(error.suggestion, '--memory');
});

test('names of Object.prototype are unknown options', (t) => {
  t.throws(() => parseArguments(['--constructor'], table), { message: 'Unknown option --constructor' });
});

test('an option that needs a value says which', (t) => {
  t.throws(() => parseArguments(['--memory'], table), { message: 'Option --memory needs a value: --memory SIZE' });
});

test('a flag takes no value', (t) => {
  t.throws(() => parseArguments(['--interactive=yes'], table), { message: 'Option --interactive takes no value' });
});
