// The reference: QEMU's lightest machine on KVM, with the same devices (console, vsock by our back end, rng).

import type { MachineExit, ResolvedMachine, RunningMachine } from '../../src/accelerators/accelerator.ts';
import { splitSocketPair, streamOf } from '../../src/host/descriptor.ts';
import { loadBinding } from '../../src/native.ts';
import type { Monitor } from './round.ts';

const CONSOLE_FD = 3;
const SIGKILL = 9;

/** A running reference machine also tells its process. */
export interface QemuMicrovm extends RunningMachine {
  readonly pid: number;
}

/** As QEMU's manual advises for a quick boot: no option ROMs, no legacy devices that the guest does not need. */
function qemuArguments(machine: ResolvedMachine): string[] {
  return [
    ['-nodefaults', '-no-user-config', '-no-reboot'],
    ['-display', 'none'],
    ['-machine', 'microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,memory-backend=ram'],
    ['-enable-kvm', '-cpu', 'host'],
    // Virtio as our own monitor offers it: version 1.
    ['-global', 'virtio-mmio.force-legacy=false'],
    ['-smp', String(machine.cpus), '-m', `${machine.memoryBytes / 1024}K`],
    ['-object', `memory-backend-memfd,id=ram,size=${machine.memoryBytes},share=on`],
    ['-kernel', machine.kernel.image, '-initrd', machine.initramfs, '-append', machine.commandLine],
    ['-chardev', `socket,id=console,fd=${CONSOLE_FD}`, '-serial', 'chardev:console'],
    ['-chardev', `socket,id=vsock,path=${machine.deviceSocket}`, '-device', 'vhost-user-vsock-device,chardev=vsock'],
    ['-device', 'virtio-rng-device'],
  ].flat();
}

export const qemuMicrovm: Monitor<QemuMicrovm> = {
  async start(machine) {
    const binding = loadBinding();
    const { guestCid, vsockSocket, deviceSocket } = machine;
    const vsock = binding.serveVsock({ guestCid, socket: vsockSocket, vhostUserSocket: deviceSocket });
    const console = splitSocketPair();
    const env = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? '']));
    const qemu = binding.spawnHelper({
      program: 'qemu-system-x86_64',
      args: qemuArguments(machine),
      env,
      fds: [{ fd: console.fd, target: CONSOLE_FD }],
      captureStderr: true,
    });
    console.release();
    const complaints = qemu.takeStderr();
    if (complaints !== null) streamOf(complaints).on('data', (text: Buffer) => process.stderr.write(text));

    const exited = qemu.wait().then(async ({ code, signal }): Promise<MachineExit> => {
      await vsock.stop();
      return { reason: code === 0 ? 'power-off' : 'failed', detail: `code ${code}, signal ${signal}` };
    });
    return {
      pid: qemu.pid,
      console: console.stream,
      exited,
      pause: unsupported,
      resume: unsupported,
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
