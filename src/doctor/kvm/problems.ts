// The problem behind each state of the KVM device: the one source of what the doctor and failing starts say about it.

import { containerOf, machineOf } from '../container.ts';
import type { FileFacts, Host, Identity } from '../host.ts';
import { asRoot, type Fix, type FixCommand, fix, type Problem } from '../model.ts';
import { kvmModule, virtualizationFlag } from '../processor.ts';
import type { DeviceState } from './device.ts';
import { permissionProblem } from './permission.ts';

const USUAL_DEVICE = '/dev/kvm';
/** There whenever the kernel has KVM, whatever this /dev holds. */
const KERNEL_HAS_KVM = '/sys/class/misc/kvm';
/** Everybody's right to search a folder. */
const SEARCHABLE = 0o111;

/** What is wrong with a KVM device in this state, for somebody; undefined where it can be used. */
export function deviceProblem(
  host: Host,
  device: string,
  state: DeviceState,
  who: Identity = host.identity,
): Problem | undefined {
  switch (state.state) {
    case 'usable':
      return undefined;
    case 'missing':
      return missingDevice(host, device);
    case 'hidden':
      return hiddenDevice(host, device, state.errno);
    case 'not-a-device':
      return {
        id: 'kvm-not-a-device',
        check: 'kvm-device',
        title: `${device} is not a device`,
        causes: [`it is a ${state.kind === 'other' ? 'file of another kind' : state.kind}`],
        fixes: replacement(host, device, state.kind),
      };
    case 'refused':
      return permissionProblem(host, device, state.facts, who);
    case 'forbidden':
      return forbiddenDevice(host, device);
    case 'unavailable':
      return {
        id: 'kvm-unavailable',
        check: 'kvm-access',
        title: `${device} could not be opened`,
        causes: [`opening ${device} failed with ${state.errno}`],
        fixes: [],
      };
  }
}

function missingDevice(host: Host, device: string): Problem {
  const module = kvmModule(host);
  const container = containerOf(host);
  const causes: string[] = [];
  const fixes: Fix[] = [];
  if (device !== USUAL_DEVICE && host.stat(USUAL_DEVICE).ok) {
    causes.push(`${USUAL_DEVICE} is there: the path is mistaken`);
    fixes.push(fix(`give the path ${USUAL_DEVICE}, or leave it out`));
  } else if (container !== undefined) {
    causes.push(`this runs in a container (${container.name}), which does not have the device`);
    // It has no modules of its own either, and no right to load any.
    fixes.push(fix(container.advice));
  } else if (host.stat(KERNEL_HAS_KVM).ok) {
    causes.push(
      "the kernel has KVM, but /dev here lacks it: a sandbox, a chroot, a service with systemd's PrivateDevices=",
    );
    fixes.push(placeDevice(host, device));
  } else if (module !== undefined) {
    causes.push(
      'the KVM kernel module is not loaded',
      "if modprobe answers 'Operation not supported', virtualization is switched off in the BIOS or UEFI firmware; if it answers 'not found', a new kernel was installed and waits for a reboot",
    );
    fixes.push(fix(`load the ${module} kernel module`, asRoot('modprobe', module)));
  } else if (host.arch === 'x86_64') {
    causes.push('the processor shows no virtualization, without which the KVM kernel module does not load');
    fixes.push(...firmwareFixes(host));
  } else {
    causes.push('the kernel was built without KVM, or was not started at the level of a hypervisor (EL2)');
    const machine = machineOf(host);
    if (machine !== undefined) fixes.push(fix(machine.advice));
  }
  if (container === undefined && device === USUAL_DEVICE && !host.stat(KERNEL_HAS_KVM).ok) {
    causes.push('in a container or CI job, the host has to pass the device in');
  }
  return { id: 'kvm-missing', check: 'kvm-device', title: `${device} is not present`, causes, fixes };
}

function hiddenDevice(host: Host, device: string, errno: string): Problem {
  const problem = { id: 'kvm-hidden', check: 'kvm-device', title: `${device} cannot be looked at` };
  if (errno !== 'EACCES') return { ...problem, causes: [`the look at ${device} failed with ${errno}`], fixes: [] };
  const folder = firstClosedFolder(host, device);
  const facts = host.stat(folder);
  if (facts.ok && (facts.value.mode & SEARCHABLE) === SEARCHABLE) {
    return {
      ...problem,
      causes: [`everybody may search ${folder}, yet it is refused: a security module (SELinux, AppArmor) refuses`],
      fixes: [],
    };
  }
  // Any other folder may be closed for a reason: a home, say.
  const isSystem = folder === '/' || folder === '/dev';
  return {
    ...problem,
    causes: [`this user may not search ${folder}`],
    fixes: isSystem ? [fix(`let everybody search ${folder}`, asRoot('chmod', 'a+x', folder))] : [],
  };
}

function firstClosedFolder(host: Host, device: string): string {
  const parts = device.split('/').slice(0, -1);
  const folders = parts.map((_, index) => parts.slice(0, index + 1).join('/') || '/');
  // What is behind a closed folder cannot be looked at; the folder itself can.
  const firstHidden = folders.findIndex((folder) => !host.stat(folder).ok);
  return (firstHidden === -1 ? folders.at(-1) : folders[firstHidden - 1]) ?? '/';
}

function replacement(host: Host, device: string, kind: FileFacts['kind']): Fix[] {
  if (device !== USUAL_DEVICE) return [fix('give the path of the KVM character device, by default /dev/kvm')];
  const container = containerOf(host);
  if (container !== undefined) return [fix(container.advice)];
  return [placeDevice(host, device, kind === 'folder' ? [asRoot('rmdir', device)] : [])];
}

/** Makes the device beside its place first: where that is refused, nothing is gone. */
function placeDevice(host: Host, device: string, away: readonly FixCommand[] = []): Fix {
  const made = `${device}.new`;
  const groups = host.readText('/etc/group');
  const hasGroup = groups.ok && /^kvm:/m.test(groups.value);
  return fix(
    'put the device in its place',
    asRoot('mknod', '-m', '0660', made, 'c', '10', '232'),
    ...(hasGroup ? [asRoot('chgrp', 'kvm', made)] : []),
    ...away,
    asRoot('mv', '-fT', made, device),
  );
}

function forbiddenDevice(host: Host, device: string): Problem {
  const container = containerOf(host);
  return {
    id: 'kvm-forbidden',
    check: 'kvm-access',
    title: `${device} is there, but the kernel does not permit its use`,
    causes: [
      container === undefined
        ? "the device cgroup of this process does not allow it (a service: systemd's DeviceAllow= and PrivateDevices=)"
        : `the device cgroup of this container (${container.name}) does not allow it`,
    ],
    fixes: [
      fix(container?.advice ?? "in the service's unit: PrivateDevices=no and DeviceAllow=/dev/kvm rw, then restart it"),
    ],
  };
}

/** The ways to a processor that shows its virtualization. */
export function firmwareFixes(host: Host): Fix[] {
  const machine = machineOf(host);
  if (virtualizationFlag(host) !== undefined) return [];
  return machine === undefined
    ? [fix('enable virtualization (VT-x, AMD-V) in the BIOS or UEFI firmware')]
    : [fix(`this is a ${machine.name}: ${machine.advice}`)];
}

/** A hypervisor other than KVM that holds the processor's virtualization, by what `/proc/modules` lists. */
const OTHER_HYPERVISORS: Readonly<Record<string, readonly [name: string, ...modules: string[]]>> = {
  vboxdrv: ['VirtualBox', 'vboxnetadp', 'vboxnetflt', 'vboxdrv'],
  vmmon: ['VMware', 'vmmon'],
};

/** What is wrong where no machine can be created. */
export function createProblem(host: Host, errno: string): Problem {
  const base = { id: 'kvm-create', check: 'kvm-create', title: 'KVM cannot create a machine' };
  switch (errno) {
    case 'EBUSY': {
      const modules = host.readText('/proc/modules');
      const loaded = new Set(modules.ok ? modules.value.split('\n').map((line) => line.split(' ')[0]) : []);
      const [name, ...removable] = Object.entries(OTHER_HYPERVISORS).find(([module]) => loaded.has(module))?.[1] ?? [];
      const present = removable.filter((module) => loaded.has(module));
      return {
        ...base,
        id: 'kvm-busy',
        causes: [`${name ?? 'another hypervisor'} holds the processor's virtualization (EBUSY)`],
        fixes:
          name === undefined
            ? [fix('stop the other hypervisor, such as VirtualBox or VMware')]
            : [fix(`stop the machines of ${name} and unload its modules`, asRoot('modprobe', '-r', ...present))],
      };
    }
    case 'ENOMEM':
      return { ...base, causes: ['the host has too little memory (ENOMEM)'], fixes: [] };
    case 'EMFILE':
    case 'ENFILE':
      return {
        ...base,
        causes: [`too many files are open (${errno})`],
        fixes: [fix('raise the limit of open files, for this shell: ulimit -n 65536')],
      };
    default:
      return { ...base, causes: [`KVM_CREATE_VM failed with ${errno}`], fixes: [] };
  }
}

/** What is wrong where KVM lacks extensions. */
export function extensionsProblem(missing: readonly string[]): Problem {
  return {
    id: 'kvm-extensions',
    check: 'kvm-extensions',
    title: 'KVM lacks what machines need',
    causes: [`missing: ${missing.join(', ')}`],
    fixes: [fix('use a newer kernel (Linux 4.11 and later have all of them), or one that was built with them')],
  };
}

/** What is wrong with a device that emulates guest kernels. */
export function emulatedProblem(device: string, ring0Ratio: number): Problem {
  return {
    id: 'kvm-emulated',
    check: 'guest-speed',
    title: `${device} emulates guest kernel code`,
    causes: [
      `guest code in ring 0 runs ${times(ring0Ratio)} times slower than on the host: a stock kernel takes minutes to boot there, or hangs`,
    ],
    fixes: [
      fix(
        "use accelerator: 'tcg' (or 'auto', which takes it), or a host that passes on the processor's virtualization; MICROVM_KVM_EMULATED=1 tries all the same",
      ),
    ],
  };
}

/** A ratio as people read it. */
export function times(ratio: number): string {
  return ratio < 10 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString('en-US');
}
