import { once } from 'node:events';
import { finished } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import test from 'ava';

import { GuestConsole, lastWords } from '../../src/vm/console.ts';
import { duplexPair } from '../helpers/duplex-pair.ts';

const KIB = 1024;

test('what the guest prints can be read, and ends with the machine', async (t) => {
  const [host, guest] = duplexPair();
  const read = text(new GuestConsole(host));
  guest.write('Linux version 6.1\n');
  guest.end('bye\n', () => guest.destroy());
  t.is(await read, 'Linux version 6.1\nbye\n');
});

test('what is written is the guest’s input', async (t) => {
  const [host, guest] = duplexPair();
  new GuestConsole(host).write('ls\n');
  t.is(String((await once(guest, 'data'))[0]), 'ls\n');
});

test('a console that nobody reads is drained: a flooding guest is never held up, and memory stays bounded', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  const chunk = Buffer.alloc(64 * KIB, 'x');
  for (let sent = 0; sent < 256; sent += 1) await new Promise<void>((resolve) => guest.write(chunk, () => resolve()));
  t.true(console.skippedBytes >= 15 * 1024 * KIB);
  t.true(console.readableLength <= 256 * KIB);
  t.true(console.tail.length <= 8 * KIB);
});

test('a late reader gets the newest part and is told how much it missed', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  await new Promise<void>((resolve) => guest.write(Buffer.alloc(300 * KIB, 'a'), () => resolve()));
  guest.end('the end', () => guest.destroy());
  const read = await text(console);
  t.is(read.length, 256 * KIB);
  t.true(read.endsWith('the end'));
  t.is(console.skippedBytes, 44 * KIB + 7);
});

test('a reader that keeps up misses nothing', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  let length = 0;
  console.on('data', (chunk: Buffer) => (length += chunk.length));
  for (let sent = 0; sent < 64; sent += 1) {
    await new Promise<void>((resolve) => guest.write(Buffer.alloc(64 * KIB), () => resolve()));
  }
  guest.destroy();
  await finished(console, { writable: false });
  t.is(length + console.skippedBytes, 64 * 64 * KIB);
  t.is(console.skippedBytes, 0);
});

test('a reader that goes away does not hold the guest up', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  console.destroy();
  for (let sent = 0; sent < 16; sent += 1) {
    await new Promise<void>((resolve) => guest.write(Buffer.alloc(64 * KIB, 'y'), () => resolve()));
  }
  t.is(console.tail.length, 8 * KIB);
});

test('the tail is safe to show: no escape sequences, no control characters', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  const [, line] = ['', '\u001b[31mKernel panic\u001b[0m \u0007\u001b]0;title\u0007not syncing\r\n\ttrace\n'];
  await new Promise<void>((resolve) => guest.write(line, () => resolve()));
  t.is(console.tail, 'Kernel panic not syncing\n\ttrace\n');
});

test('a machine whose console breaks ends the stream without an error', async (t) => {
  const [host, guest] = duplexPair();
  const console = new GuestConsole(host);
  guest.write('last words');
  host.destroy(new Error('ECONNRESET'));
  await t.notThrowsAsync(text(console));
});

test('input for a machine that has ended is dropped', async (t) => {
  const [host] = duplexPair();
  const console = new GuestConsole(host);
  console.resume();
  host.destroy();
  await once(console, 'end');
  t.notThrows(() => console.end('too late'));
});

test('onConsole gets every byte from the first, whoever reads', async (t) => {
  const [host, guest] = duplexPair();
  guest.write('early ');
  const chunks: Uint8Array[] = [];
  const console = new GuestConsole(host, (chunk) => {
    chunks.push(chunk);
  });
  guest.end('late', () => guest.destroy());
  t.is(await text(console), 'early late');
  t.is(Buffer.concat(chunks).toString(), 'early late');
});

test('what onConsole does to its bytes, or throws, touches neither the machine nor what is kept', async (t) => {
  const [host, guest] = duplexPair();
  const warned = once(process, 'warning');
  const console = new GuestConsole(host, (chunk) => {
    chunk.fill(0);
    throw new Error('no terminal');
  });
  guest.end('panic\n', () => guest.destroy());
  t.is(await text(console), 'panic\n');
  t.is(console.tail, 'panic\n');
  t.regex(String((await warned)[0]), /onConsole threw.*no terminal/);
});

test('the last words are waited for, but not for long', async (t) => {
  const [host, guest] = duplexPair();
  const vm = { machine: { console: host }, console: new GuestConsole(host) };
  guest.write('Linux version\n');
  setImmediate(() => guest.end('Kernel panic\n', () => guest.destroy()));
  t.is(await lastWords(vm), 'Linux version\nKernel panic\n');
  t.is(await lastWords(vm), 'Linux version\nKernel panic\n');

  const [silent, held] = duplexPair();
  const stuck = { machine: { console: silent }, console: new GuestConsole(silent) };
  held.write('half');
  t.is(await lastWords(stuck), 'half');
});
