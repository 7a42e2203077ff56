// What confinement is to be had here for processes that serve machines.

import type { Context } from '../context.ts';
import type { DoctorHost } from '../host.ts';
import { type Finding, found, together } from '../model.ts';
import { fieldOf } from '../texts.ts';

/** Seccomp actions that a filter of ours takes. */
const NEEDED_ACTION = 'errno';
const CAPABILITIES: Readonly<Record<string, bigint>> = {
  CAP_DAC_OVERRIDE: 1n << 1n,
  CAP_NET_ADMIN: 1n << 12n,
  CAP_SYS_ADMIN: 1n << 21n,
};

export async function checkConfinement({ host }: Context): Promise<Finding> {
  return together(
    found('user-namespaces', 'User namespaces', 'info', await userNamespaces(host)),
    found('seccomp', 'seccomp', 'info', seccomp(host)),
    found('landlock', 'Landlock', 'info', landlock(host)),
    found('capabilities', 'Capabilities', 'info', capabilities(host)),
  );
}

async function userNamespaces(host: DoctorHost): Promise<string> {
  const most = host.readText('/proc/sys/user/max_user_namespaces');
  if (!most.ok) return 'not in this kernel';
  if (Number(most.value) === 0) return 'switched off (user.max_user_namespaces=0)';
  const unshare = host.program('unshare');
  if (unshare === undefined) return 'in this kernel; not tried, for there is no unshare program';
  const ran = await host.run([unshare, '--user', '--map-root-user', 'true']);
  if (ran?.code === 0) return 'available';
  const restricted = host.readText('/proc/sys/kernel/apparmor_restrict_unprivileged_userns');
  if (restricted.ok && restricted.value.trim() === '1') {
    return 'refused (kernel.apparmor_restrict_unprivileged_userns=1)';
  }
  const old = host.readText('/proc/sys/kernel/unprivileged_userns_clone');
  return old.ok && old.value.trim() === '0' ? 'refused (kernel.unprivileged_userns_clone=0)' : 'refused';
}

function seccomp(host: DoctorHost): string {
  const actions = host.readText('/proc/sys/kernel/seccomp/actions_avail');
  if (!actions.ok || !actions.value.split(/\s+/).includes(NEEDED_ACTION)) return 'filters are not in this kernel';
  const status = host.readText('/proc/self/status');
  const mode = status.ok ? fieldOf(status.value, 'Seccomp') : undefined;
  return mode === '2' ? 'available; this process is under a filter already' : 'available';
}

function landlock(host: DoctorHost): string {
  const answer = host.tryInterface('landlock');
  if (answer === undefined) return 'cannot be tried without the addon';
  return answer.ok ? `ABI version ${answer.value}` : `not available (${answer.errno})`;
}

function capabilities(host: DoctorHost): string {
  const status = host.readText('/proc/self/status');
  const effective = BigInt(`0x${(status.ok ? fieldOf(status.value, 'CapEff') : undefined) ?? '0'}`);
  if (effective === 0n) return 'none';
  const named = Object.entries(CAPABILITIES).filter(([, bit]) => (effective & bit) !== 0n);
  return named.length === 0 ? 'some' : `some, with ${named.map(([name]) => name).join(', ')}`;
}
