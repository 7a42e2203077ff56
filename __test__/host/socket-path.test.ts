import test from 'ava';

import { MicroVMError } from '../../src/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '../../src/config/values.ts';
import { checkSocketPath } from '../../src/host/socket-path.ts';

test('bytes count, not letters', (t) => {
  const longest = `/${'ü'.repeat((MAX_SOCKET_PATH_BYTES - 1) / 2)}`;
  t.is(checkSocketPath(longest), longest);
  const error = t.throws(() => checkSocketPath(`${longest}x`), {
    instanceOf: MicroVMError,
    code: 'ERR_SOCKET_PATH_TOO_LONG',
  });
  t.regex(error.message, /has 108 bytes; Linux allows 107/);
});

test('the hint fits whoever has chosen the path', (t) => {
  const hintFor = (chosenBy?: 'us' | 'caller'): string =>
    t.throws(() => checkSocketPath('x'.repeat(200), chosenBy), { instanceOf: MicroVMError }).hint ?? '';
  t.regex(hintFor(), /XDG_RUNTIME_DIR/);
  t.regex(hintFor('us'), /XDG_RUNTIME_DIR/);
  t.regex(hintFor('caller'), /^Choose a shorter path/);
  t.notRegex(hintFor('caller'), /XDG_RUNTIME_DIR/);
});
