// The host for a whole diagnosis: what takes programs, the addon, the package or a guest kernel besides.

import { execFile } from 'node:child_process';
import { existsSync, statfsSync } from 'node:fs';
import type { Binding } from '../binding.ts';
import { MicroVMError, errnoOf } from '../errors.ts';
import { findKernel } from '../guest/kernel.ts';
import { neededModules } from '../guest/modules.ts';
import { guestSpeed } from '../host/guest-speed.ts';
import { packageFacts } from '../native.ts';
import type { DoctorHost, KernelFacts, KernelFailure, KvmAnswers, Outcome, Ran } from './host.ts';
import { attempt, bindingOrNone, errnoName, inspectHost } from './inspect-host.ts';

const PROGRAM_TIMEOUT_MS = 5_000;

/** This host, as this process sees it now. */
export function inspectAll(env: NodeJS.ProcessEnv = process.env): DoctorHost {
  const binding = bindingOrNone();
  return {
    ...inspectHost(env),
    freeBytes(path) {
      const free = attempt(() => statfsSync(path));
      return free.ok ? free.value.bavail * free.value.bsize : undefined;
    },
    run: (argv) => run(argv, env),
    tryInterface: (name) => binding && attempt(() => binding.tryInterface(name)),
    tryVsockCid: (device, cid) => binding && attempt(() => binding.tryVsockCid(device, cid)),
    kvm: (device, extensions) => binding && askKvm(binding, device, extensions),
    async guestSpeed(device) {
      if (binding === undefined) return undefined;
      try {
        return { ok: true, value: await guestSpeed(device) };
      } catch (error) {
        return { ok: false, errno: errnoName(error) };
      }
    },
    packageFacts,
    guestKernel: () => lookForKernel(env),
  };
}

/** Codes that say more than the errno beside them. */
const TELLING_CODES: ReadonlySet<string | undefined> = new Set(['ERR_KVM_API_VERSION', 'ERR_KVM_NOT_A_DEVICE']);

function askKvm(binding: Binding, device: string, extensions: readonly number[]): Outcome<KvmAnswers> {
  try {
    return { ok: true, value: answersOf(binding.BindingKvm.open({ path: device }), extensions) };
  } catch (error) {
    const code = errnoOf(error);
    return { ok: false, errno: TELLING_CODES.has(code) && code !== undefined ? code : errnoName(error) };
  }
}

function answersOf(kvm: ReturnType<Binding['BindingKvm']['open']>, extensions: readonly number[]): KvmAnswers {
  try {
    return {
      apiVersion: kvm.apiVersion,
      extensions: new Map(extensions.map((number) => [number, kvm.checkExtension(number)])),
      createVm: attempt(() => createAndClose(kvm)),
    };
  } finally {
    kvm.close();
  }
}

function createAndClose(kvm: ReturnType<Binding['BindingKvm']['open']>): void {
  // Closing takes up to 30 ms and is done elsewhere; there is nothing to be learned from its end.
  kvm
    .createVm()
    .close()
    .catch(() => {});
}

function run([file, ...args]: readonly string[], env: NodeJS.ProcessEnv): Promise<Ran | undefined> {
  return new Promise((resolve) => {
    if (file === undefined) return resolve(undefined);
    // In the language that its words are looked for in.
    const options = { env: { ...env, LC_ALL: 'C' }, timeout: PROGRAM_TIMEOUT_MS };
    const child = execFile(file, args, options, (error, stdout) => {
      const started = error === null || typeof error.code === 'number';
      resolve(started ? { code: child.exitCode ?? undefined, stdout } : undefined);
    });
  });
}

async function lookForKernel(env: NodeJS.ProcessEnv): Promise<KernelFacts | KernelFailure> {
  try {
    const { image, release, source, modules } = await findKernel(undefined, { env });
    return { image, release, source, modules, missingDrivers: await missingDrivers(modules) };
  } catch (error) {
    if (!(error instanceof MicroVMError)) throw error;
    return { code: error.code, message: error.message, hint: error.hint };
  }
}

/** The complaint of either transport, as a machine would make it. */
async function missingDrivers(modules: string | undefined): Promise<string | undefined> {
  if (modules === undefined || !existsSync(modules)) return undefined;
  for (const transport of ['mmio', 'pci'] as const) {
    try {
      await neededModules(modules, transport);
    } catch (error) {
      if (!(error instanceof MicroVMError)) throw error;
      return error.message;
    }
  }
  return undefined;
}
