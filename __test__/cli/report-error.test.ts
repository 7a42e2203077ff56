import test from 'ava';

import { UsageError } from '../../src/cli/arguments.ts';
import { errorAsData, errorAsText } from '../../src/cli/report-error.ts';
import { MicroVMError } from '../../src/errors.ts';
import { GuestFileError } from '../../src/guest-api/file-error.ts';
import { AgentRefusal } from '../../src/guest-api/refusal.ts';

test('what a kernel refused is told as data with its errno and path, whichever it was', (t) => {
  const guest = new GuestFileError(new AgentRefusal('ENOENT', 'No such file or directory'), 'copy', '/no/such');
  const refused = new MicroVMError('ERR_AGENT_REFUSED', 'The guest says no', { cause: guest });
  t.like(errorAsData(refused), { code: 'ERR_AGENT_REFUSED', errno: 'ENOENT', path: '/no/such' });
  // As the addon tells it: with the number of the errno.
  const native = Object.assign(new Error('Permission denied'), { code: 'ERR_COPY_FILE', errno: 13, path: '/own' });
  const here = new MicroVMError('ERR_COPY_FILE', 'It cannot be read', { cause: native });
  t.like(errorAsData(here), { code: 'ERR_COPY_FILE', errno: 'EACCES', path: '/own' });
  // As Node tells it.
  const node = Object.assign(new Error('no room'), { code: 'ENOSPC', errno: -28 });
  t.like(errorAsData(new MicroVMError('ERR_CACHE', 'It is full', { cause: node })), { errno: 'ENOSPC' });
});

test('other failures have neither', (t) => {
  for (const cause of [undefined, 'a reason', new Error('x'), new MicroVMError('ERR_ABORTED', 'x')]) {
    const data = errorAsData(new MicroVMError('ERR_AGENT_LOST', 'It broke', { cause }));
    t.false('errno' in data || 'path' in data);
  }
});

test('a usage error names the page that explains it', (t) => {
  const error = new UsageError('No such thing', 'another');
  const { stderr } = process;
  t.regex(errorAsText(error, stderr), /No such thing\n {2}Did you mean another\? See microvm --help\n$/);
  t.regex(errorAsText(error, stderr, 'cp'), /Did you mean another\? See microvm cp --help\n$/);
  t.like(errorAsData(new UsageError('No'), 'ring3 run'), { code: 'ERR_USAGE', hint: 'See microvm ring3 run --help' });
});
