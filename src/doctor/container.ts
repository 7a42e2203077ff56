// What this process runs in, and how to hand the KVM device in there.

import type { Host } from './host.ts';

/** A container or virtual machine around this process. */
export interface Surroundings {
  readonly name: string;
  /** How to give it the KVM device: what to do where it is started, not here. */
  readonly advice: string;
}

const ADVICE = {
  docker: 'start the container with: docker run --device /dev/kvm …',
  podman: 'start the container with: podman run --device /dev/kvm --group-add keep-groups …',
  kubernetes:
    "give the pod the device by a device plugin (such as KubeVirt's: resources.limits 'devices.kubevirt.io/kvm: 1'), or run it with securityContext.privileged: true and a hostPath of /dev/kvm",
  lxc: "in the container's configuration: 'lxc.cgroup2.devices.allow = c 10:232 rwm' and 'lxc.mount.entry = /dev/kvm dev/kvm none bind,optional,create=file' (Incus and LXD: incus config device add NAME kvm unix-char path=/dev/kvm)",
  'systemd-nspawn': "start the container with: systemd-nspawn --bind=/dev/kvm --property=DeviceAllow='/dev/kvm rw' …",
  other: 'let whoever starts the container pass in the device /dev/kvm',
  wsl: "in Windows, put 'nestedVirtualization=true' under [wsl2] into %UserProfile%\\.wslconfig, then run: wsl --shutdown",
} as const;

/** The container that this process runs in; undefined where it runs in none that can be told. */
export function containerOf(host: Host): Surroundings | undefined {
  const { env } = host;
  const has = (path: string): boolean => host.stat(path).ok;
  const cgroup = textOf(host, '/proc/self/cgroup');
  const named = env['container'] ?? /(?:^|\0)container=([^\0]*)/.exec(textOf(host, '/proc/1/environ'))?.[1];
  // Pods are made by one of the others, so they are asked about first.
  if (env['KUBERNETES_SERVICE_HOST'] || /kubepods/.test(cgroup)) return surroundings('kubernetes');
  if (has('/run/.containerenv') || named === 'podman') return surroundings('podman');
  if (has('/.dockerenv') || /\/docker[/-]/.test(cgroup)) return surroundings('docker');
  if (named === 'lxc' || named === 'lxc-libvirt' || has('/dev/.lxc') || /\/lxc[./]/.test(cgroup))
    return surroundings('lxc');
  if (named === 'systemd-nspawn') return surroundings('systemd-nspawn');
  return named ? { name: `container (${named})`, advice: ADVICE.other } : undefined;
}

/** Windows' subsystem, or the virtual machine that this host is; undefined on real hardware, as far as can be told. */
export function machineOf(host: Host): Surroundings | undefined {
  if (/microsoft/i.test(textOf(host, '/proc/version'))) return { name: 'WSL2', advice: ADVICE.wsl };
  const vendor = textOf(host, '/sys/class/dmi/id/sys_vendor').trim();
  const product = textOf(host, '/sys/class/dmi/id/product_name').trim();
  const isGuest = /^flags\s*:.*\bhypervisor\b/m.test(textOf(host, '/proc/cpuinfo'));
  if (
    !isGuest &&
    !/QEMU|KVM|VMware|VirtualBox|innotek|Xen|Bochs|Parallels|Virtual Machine|Google/i.test(`${vendor} ${product}`) &&
    // arm64 has no flag that tells, and bare metal there bears the same vendor.
    !(/Amazon EC2/i.test(vendor) && !/\.metal/i.test(product))
  )
    return undefined;
  const name = [vendor, product].filter((text) => text !== '').join(' ');
  return { name: `virtual machine${name === '' ? '' : ` (${name})`}`, advice: nestedAdvice(`${vendor} ${product}`) };
}

/** How to start the container so that its users may open a device of this group; undefined where that is not known. */
export function groupAdvice(container: Surroundings, gid: number): string | undefined {
  switch (container.name) {
    case 'docker':
      return `start the container with: docker run --device /dev/kvm --group-add ${gid} …`;
    case 'podman':
      return ADVICE.podman;
    case 'kubernetes':
      return `in the pod's specification: securityContext.supplementalGroups: [${gid}]`;
    default:
      return undefined;
  }
}

function nestedAdvice(maker: string): string {
  if (/Amazon/i.test(maker)) return 'choose a .metal instance type, or one that allows nested virtualization';
  if (/Google/i.test(maker)) {
    return 'create the instance with: gcloud compute instances create … --enable-nested-virtualization';
  }
  if (/Microsoft/i.test(maker)) {
    return 'in Azure choose a size with nested virtualization; in Hyper-V: Set-VMProcessor -VMName NAME -ExposeVirtualizationExtensions $true';
  }
  if (/VMware/i.test(maker)) return "switch on 'Expose hardware assisted virtualization to the guest OS'";
  if (/VirtualBox|innotek/i.test(maker)) return 'on the host: VBoxManage modifyvm NAME --nested-hw-virt on';
  return "on the host, load KVM with nested=1 and give the guest the host's CPU (QEMU: -cpu host; libvirt: host-passthrough)";
}

function surroundings(name: Exclude<keyof typeof ADVICE, 'other' | 'wsl'>): Surroundings {
  return { name, advice: ADVICE[name] };
}

function textOf(host: Host, path: string): string {
  const text = host.readText(path);
  return text.ok ? text.value : '';
}
