import { execFileSync } from 'node:child_process';
import test from 'ava';

import { quote } from '../../src/doctor/quote.ts';

test('ordinary words stay as they are', (t) => {
  for (const word of ['/dev/kvm', 'u:ann:rw', '-aG', 'a.b_c@d%e+f,g', 'key=value']) t.is(quote(word), word);
});

const ODD = ['', 'a b', "it's", '$(reboot)', '`id`', 'a;b', 'a\nb', '~', '*', '"', '\\', '!x', '=x', '#', 'é', '{a,b}'];

for (const word of ODD) {
  test(`a shell reads ${JSON.stringify(word)} back as it was`, (t) => {
    const text = execFileSync('sh', ['-c', `printf %s ${quote(word)}`], { encoding: 'utf8' });
    t.is(text, word);
    t.not(quote(word), word);
  });
}
