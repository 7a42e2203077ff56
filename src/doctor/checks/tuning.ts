// Settings of the host that make machines slow to create, or let them watch each other.

import type { Context } from '../context.ts';
import type { DoctorHost } from '../host.ts';
import { type Finding, found, together } from '../model.ts';

const [NX, DYNMODS] = ['nx-huge-pages', 'favordynmods'] as const;

export function checkTuning({ host }: Context): Finding {
  return together(nxHugePages(host), favorDynMods(host), simultaneousThreads(host), samePageMerging(host), swap(host));
}

/**
 * Unless the mitigation is off for good, KVM starts a thread for each machine, which joins the control groups of its
 * owner; on many kernels that waits for a grace period of RCU, unless control groups favour changes.
 */
function nxHugePages(host: DoctorHost): Finding {
  const value = wordOf(host, '/sys/module/kvm/parameters/nx_huge_pages');
  if (value === undefined) return found(NX, 'nx_huge_pages', 'info', 'not a setting of this kernel');
  if (value === 'never') return found(NX, 'nx_huge_pages', 'pass', 'off for good (never)');
  if (isFavoured(host)) return found(NX, 'nx_huge_pages', 'pass', `${value}, and cgroup favordynmods is on`);
  // A mitigation: whether to go without it is for a person to decide, so this offers no command.
  const cost = 'creating a machine may take milliseconds more than with never, or with cgroup favordynmods';
  return found(NX, 'nx_huge_pages', 'info', `${value}: ${cost}`);
}

function favorDynMods(host: DoctorHost): Finding {
  const mount = cgroupMount(host);
  if (mount === undefined) return found(DYNMODS, 'cgroup favordynmods', 'info', 'no cgroup version 2 to be seen');
  const value = isFavoured(host) ? 'on' : 'off: moving processes between control groups takes milliseconds';
  return found(DYNMODS, 'cgroup favordynmods', 'info', value);
}

function simultaneousThreads(host: DoctorHost): Finding {
  const value = wordOf(host, '/sys/devices/system/cpu/smt/active');
  const text =
    value === '1'
      ? 'on: guests on two threads of a core may learn of each other; off with nosmt'
      : value === '0'
        ? 'off'
        : 'cannot be told';
  return found('smt', 'SMT', 'info', text);
}

function samePageMerging(host: DoctorHost): Finding {
  const value = wordOf(host, '/sys/kernel/mm/ksm/run');
  const text =
    value === '1'
      ? 'on: guests may find out by timing which pages others have; off with echo 2 > /sys/kernel/mm/ksm/run'
      : value === undefined
        ? 'not in this kernel'
        : 'off';
  return found('ksm', 'KSM', 'info', text);
}

function swap(host: DoctorHost): Finding {
  const text = host.readText('/proc/swaps');
  const areas = text.ok
    ? text.value
        .split('\n')
        .slice(1)
        .filter((line) => line !== '')
    : [];
  const value = areas.length === 0 ? 'none' : 'on: memory of guests may be written to disk, and machines pause for it';
  return found('swap', 'Swap', 'info', value);
}

function isFavoured(host: DoctorHost): boolean {
  return cgroupMount(host)?.includes('favordynmods') ?? false;
}

function cgroupMount(host: DoctorHost): string | undefined {
  const mounts = host.readText('/proc/self/mountinfo');
  return (mounts.ok ? mounts.value : '').split('\n').find((line) => line.includes(' - cgroup2 '));
}

function wordOf(host: DoctorHost, path: string): string | undefined {
  const text = host.readText(path);
  return text.ok ? text.value.trim() : undefined;
}
