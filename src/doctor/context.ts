// What all checks of one diagnosis share.

import { KVM_EXTENSIONS } from '../host/kvm-extensions.ts';
import type { Account, DoctorHost, Identity, KvmAnswers, Outcome, SpeedFacts } from './host.ts';
import { type DeviceState, examineDevice } from './kvm/device.ts';

/** The host, and answers that several checks need: each is asked for once. */
export interface Context {
  readonly host: DoctorHost;
  readonly kvmDevice: string;
  readonly device: DeviceState;
  /** What KVM says of itself; undefined where it cannot be opened, or there is no addon to ask with. */
  readonly kvm: Outcome<KvmAnswers> | undefined;
  /** Guest speed; undefined where KVM makes no machine to measure. */
  readonly speed: Outcome<SpeedFacts> | undefined;
  /** Who called `sudo` or `pkexec`, where this is root for that reason. */
  readonly caller: Caller | undefined;
}

/** The person behind root. */
export interface Caller extends Identity {
  readonly account: Account;
}

/** Examines what several checks need. */
export async function prepare(host: DoctorHost, kvmDevice: string): Promise<Context> {
  const device = examineDevice(host, kvmDevice);
  const isUsable = device.state === 'usable';
  const kvm = isUsable ? host.kvm(kvmDevice, [...KVM_EXTENSIONS.values()]) : undefined;
  const speed = kvm?.ok && kvm.value.createVm.ok ? await host.guestSpeed(kvmDevice) : undefined;
  return { host, kvmDevice, device, kvm, speed, caller: callerOf(host) };
}

function callerOf(host: DoctorHost): Caller | undefined {
  if (host.identity.uid !== 0) return undefined;
  const uid = Number(host.env['SUDO_UID'] ?? host.env['PKEXEC_UID'] ?? Number.NaN);
  if (!Number.isInteger(uid) || uid <= 0) return undefined;
  const account = host.account(uid);
  // Root does not have the caller's groups: those of the database are what a new login has.
  return account && { uid, gid: account.gid, groups: host.groupsOf(account), account };
}
