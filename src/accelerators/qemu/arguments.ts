// QEMU's command line for a machine.

import { type ResolvedMachine, SHARE_QUEUE_SIZE } from '../accelerator.ts';

/** Numbers of the descriptors that QEMU inherits, and the sockets it connects to. */
export interface QemuWiring {
  readonly consoleFd: number;
  readonly qmpFd: number;
  /** Where the vsock device is: our own waits as a vhost-user back end at a socket, the kernel's is one more descriptor. */
  readonly vsock: { readonly backend: string } | { readonly vhostFd: number };
}

/**
 * The arguments. `q35` and PCI rather than the `microvm` machine: on a busy host a kernel hangs in the latter while it
 * calibrates its delay loop. RAM is a shared memfd, for the vsock device runs outside of QEMU.
 */
export function qemuArguments(machine: ResolvedMachine, wiring: QemuWiring): string[] {
  return [
    '-nodefaults',
    '-no-user-config',
    ['-display', 'none'],
    // A reset ends the machine, as it does with our own VMM.
    '-no-reboot',
    // Stopped until the control channel is ready, so that no event is missed.
    '-S',
    ['-machine', 'q35,usb=off,vmport=off,sata=off,smbus=off,memory-backend=ram'],
    ['-accel', 'tcg,thread=multi'],
    // Five-level page tables would only make each page walk dearer. Fast string moves are emulated byte by byte: without
    // them kernels copy by words, and the output of commands comes three times as fast. The two bits go together: of a
    // processor that has FSRM alone, which newer QEMUs tell, Linux before 6.4 believes short moves done by the other.
    ['-cpu', 'max,la57=off,erms=off,fsrm=off'],
    ['-smp', String(machine.cpus)],
    ['-m', `${machine.memoryBytes / 1024}K`],
    ['-object', `memory-backend-memfd,id=ram,size=${machine.memoryBytes},share=on`],
    ['-kernel', machine.kernel.image],
    ['-initrd', machine.initramfs],
    ['-append', machine.commandLine],
    ['-chardev', `socket,id=console,fd=${wiring.consoleFd}`],
    ['-serial', 'chardev:console'],
    ['-chardev', `socket,id=qmp,fd=${wiring.qmpFd}`],
    ['-mon', 'chardev=qmp,mode=control'],
    ...vsockArguments(machine.guestCid, wiring.vsock),
    ...machine.shares.flatMap(({ tag, socket, requestQueues }) => [
      ['-chardev', `socket,id=${tag},path=${escaped(socket)}`],
      [
        '-device',
        `vhost-user-fs-pci,chardev=${tag},tag=${tag},queue-size=${SHARE_QUEUE_SIZE},num-request-queues=${requestQueues}`,
      ],
    ]),
    ['-device', 'virtio-rng-pci'],
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  ].flat();
}

function vsockArguments(guestCid: number, vsock: QemuWiring['vsock']): string[][] {
  return 'vhostFd' in vsock
    ? [['-device', `vhost-vsock-pci,guest-cid=${guestCid},vhostfd=${vsock.vhostFd}`]]
    : [
        ['-chardev', `socket,id=vsock,path=${escaped(vsock.backend)}`],
        ['-device', 'vhost-user-vsock-pci,chardev=vsock'],
      ];
}

/** A value inside a comma-separated list: QEMU takes a doubled comma for one. */
function escaped(value: string): string {
  return value.replaceAll(',', ',,');
}
