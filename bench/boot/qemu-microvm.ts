// The reference: QEMU's lightest machine on KVM, with the same devices (console, vsock by our back end, rng).

import type { Accelerator, MachineExit, ResolvedMachine } from '../../src/accelerators/accelerator.ts';
import { kvm } from '../../src/accelerators/kvm.ts';
import { bootableImage } from '../../src/accelerators/vmlinux.ts';
import { splitSocketPair, streamOf } from '../../src/host/descriptor.ts';
import { loadBinding } from '../../src/native.ts';

const CONSOLE_FD = 3;
const SIGKILL = 9;

let pid = 0;

/** The process of the machine that was started last. */
export function lastPid(): number {
  return pid;
}

/** As QEMU's manual advises for a quick boot: no option ROMs, no legacy devices that the guest does not need. */
function qemuArguments(machine: ResolvedMachine, kernel: string): string[] {
  return [
    ['-nodefaults', '-no-user-config', '-no-reboot'],
    ['-display', 'none'],
    ['-machine', 'microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,memory-backend=ram'],
    ['-enable-kvm', '-cpu', 'host'],
    // Virtio as our own monitor offers it: version 1.
    ['-global', 'virtio-mmio.force-legacy=false'],
    ['-smp', String(machine.cpus), '-m', `${machine.memoryBytes / 1024}K`],
    ['-object', `memory-backend-memfd,id=ram,size=${machine.memoryBytes},share=on`],
    ['-kernel', kernel, '-initrd', machine.initramfs, '-append', machine.commandLine],
    ['-chardev', `socket,id=console,fd=${CONSOLE_FD}`, '-serial', 'chardev:console'],
    ['-chardev', `socket,id=vsock,path=${machine.deviceSocket}`, '-device', 'vhost-user-vsock-device,chardev=vsock'],
    ['-device', 'virtio-rng-device'],
  ].flat();
}

export const qemuMicrovm: Accelerator = {
  name: 'kvm',
  transport: kvm.transport,
  tagsComeFrom: kvm.tagsComeFrom,
  commandLine: kvm.commandLine,

  async start(machine) {
    // Both boot the unpacked kernel, so neither pays for unpacking it.
    const kernel = await bootableImage(machine.kernel);
    const binding = loadBinding();
    const { guestCid, vsockSocket, deviceSocket } = machine;
    const vsock = binding.serveVsock({ guestCid, socket: vsockSocket, vhostUserSocket: deviceSocket });
    const console = splitSocketPair();
    const env = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? '']));
    const qemu = binding.spawnHelper({
      program: 'qemu-system-x86_64',
      args: qemuArguments(machine, kernel.path),
      env,
      fds: [{ fd: console.fd, target: CONSOLE_FD }],
      captureStderr: true,
    });
    console.release();
    pid = qemu.pid;
    const complaints = qemu.takeStderr();
    if (complaints !== null) streamOf(complaints).on('data', (text: Buffer) => process.stderr.write(text));

    const exited = qemu.wait().then(async ({ code, signal }): Promise<MachineExit> => {
      await vsock.stop();
      return { reason: code === 0 ? 'power-off' : 'failed', detail: `code ${code}, signal ${signal}` };
    });
    return {
      pid,
      console: console.stream,
      exited,
      pause: unsupported,
      resume: unsupported,
      metrics: unsupported,
      powerButton: unsupported,
      kill() {
        qemu.kill(SIGKILL);
        return exited;
      },
      killSync: () => qemu.kill(SIGKILL),
    };
  },
};

function unsupported(): Promise<never> {
  return Promise.reject(new Error('The benchmark does not do this'));
}
