import test from 'ava';

import { UsageError } from '../../src/cli/arguments.ts';
import { publishedPorts } from '../../src/cli/publish-arguments.ts';

for (const [text, port] of [
  ['8080:80', { host: 8080, guest: 80 }],
  ['0:80', { host: 0, guest: 80 }],
  ['0.0.0.0:8080:80', { hostAddress: '0.0.0.0', host: 8080, guest: 80 }],
  ['[::1]:8080:80', { hostAddress: '::1', host: 8080, guest: 80 }],
  ['./a.sock:80', { host: './a.sock', guest: 80 }],
  ['/tmp/a:/run/b', { host: '/tmp/a', guest: '/run/b' }],
  ['8080:/run/b', { host: 8080, guest: '/run/b' }],
] as const) {
  test(`--publish ${text} is understood`, (t) => t.deepEqual(publishedPorts([text]), [port]));
}

for (const text of ['', '80', ':80', '80:', 'a:80', '80:b', '80:./b', '::1:8080:80', '1:2:3:4', '80:80/udp']) {
  test(`--publish '${text}' is refused`, (t) => {
    t.throws(() => publishedPorts([text]), { instanceOf: UsageError, message: /--publish takes/ });
  });
}
