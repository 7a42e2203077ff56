// Limits of time for an agent that stands still because its machine does.

import { readdirSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import test from 'ava';

import { AgentApi } from '../../src/guest-api/agent-api.ts';
import { Patience } from '../../src/host/patience.ts';
import { agentByHand } from '../helpers/agent-by-hand.ts';

const after = (ms: number): Promise<'waiting'> => new Promise((resolve) => setTimeout(resolve, ms, 'waiting'));

/** Stops a process; each thread takes the signal when it runs next. */
async function stop(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const stands = (task: string): boolean => {
    try {
      return /\) T /.test(readFileSync(`/proc/${pid}/task/${task}/stat`, 'latin1'));
    } catch {
      // It has ended meanwhile.
      return true;
    }
  };
  while (!readdirSync(`/proc/${pid}/task`).every(stands)) await setImmediate();
}

test('an answer that comes after a long pause is an answer', async (t) => {
  const patience = new Patience();
  const { api, pid } = await agentByHand(t, { answerTimeoutMs: 400, patience });
  // Whatever is to be answered may take its time: this machine may be busy.
  patience.hold();
  await api.open('GET', '/v1/version').then((stream) => api.answerTo(stream.end()));
  await stop(pid);
  t.teardown(() => process.kill(pid, 'SIGCONT'));
  const stream = await api.open('GET', '/v1/version');
  const answer = api.answerTo(stream.end());
  t.is(await Promise.race([answer, after(1_000)]), 'waiting');
  process.kill(pid, 'SIGCONT');
  t.is(Number((await answer).headers[':status']), 200);
  patience.release();

  // Without a pause it is as late as ever.
  await stop(pid);
  const late = await api.open('GET', '/v1/version');
  await t.throwsAsync(api.answerTo(late.end()), { code: 'ERR_AGENT_TIMEOUT' });
});

test('the connection is waited for too', async (t) => {
  const patience = new Patience();
  const transport = {
    dial: (_: number, { signal }: { readonly signal?: AbortSignal | undefined } = {}) =>
      new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
  };
  const api = new AgentApi(transport, { connectTimeoutMs: 50, patience });
  patience.hold();
  const opening = api.open('GET', '/v1/version');
  t.is(await Promise.race([opening, after(200)]), 'waiting');
  patience.release();
  await t.throwsAsync(opening, { code: 'ERR_CHANNEL_TIMEOUT' });
});
