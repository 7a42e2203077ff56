/** A kernel image together with the folder that holds its modules. */
export interface KernelFiles {
  /** Path of a bzImage or an uncompressed ELF vmlinux. */
  readonly image: string;
  /**
   * Folder with the kernel's `modules.dep`, or one that has it in a subfolder named like the kernel's release.
   * @default looked for beside the image, then in /lib/modules
   */
  readonly modules?: string | undefined;
}

/** A guest on the host's own vsock (AF_VSOCK). */
export interface VhostVsockOptions {
  readonly type: 'vhost';
  /**
   * The guest's context ID, 3 to 4294967294; no other guest of this host may have it.
   * @default a free one
   */
  readonly cid?: number | undefined;
  /**
   * The host's port where the guest's agent reports, 1 to 4294967294. All machines of a process share it; two processes
   * cannot.
   * @default 1024
   */
  readonly port?: number | undefined;
  /**
   * The device.
   * @default '/dev/vhost-vsock'
   */
  readonly device?: string | undefined;
}

/** What `MicroVM.create` takes. Everything has a default. */
export interface MicroVMOptions {
  /**
   * The guest kernel: a path, or the image with its modules folder.
   * @default $MICROVM_KERNEL, then the kernel that set-up put in the cache, then the one in /boot
   */
  readonly kernel?: string | KernelFiles | undefined;
  /**
   * Words to append to the kernel command line.
   * @default ''
   */
  readonly cmdline?: string | undefined;
  /**
   * Number of virtual CPUs, 1 to 64.
   * @default 1
   */
  readonly cpus?: number | undefined;
  /**
   * Guest memory: `'256MiB'`, `'1GiB'`, or a number of bytes; whole pages of 4096 bytes.
   * @default '256MiB'
   */
  readonly memory?: string | number | undefined;
  /**
   * Back guest memory with huge pages of the host (2 MiB). `kvm` only; needs pages reserved on the host.
   * @default false
   */
  readonly hugePages?: boolean | undefined;
  /**
   * What the guest's root file system holds besides the agent: `'default'` (a small userland with a shell),
   * `'none'`, or the path of a folder or of a cpio archive (newc, plain or gzip) that is packed into the initramfs.
   * Write a relative path with `./` when it is called `default` or `none`.
   * @default 'default'
   */
  readonly rootfs?: string | undefined;
  /**
   * Environment variables for every command, over the agent's own PATH and HOME.
   * @default {}
   */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /**
   * The guest's host name.
   * @default 'microvm'
   */
  readonly hostname?: string | undefined;
  /**
   * What runs the guest: `'kvm'` (our own machine monitor), `'tcg'` (QEMU as a CPU emulator),
   * or `'auto'`: kvm where this host runs guests natively, else tcg.
   * @default 'auto'
   */
  readonly accelerator?: 'auto' | 'kvm' | 'tcg' | undefined;
  /**
   * Milliseconds from the start of the machine, QEMU's own start included, until the guest's agent must answer.
   * @default 30000 with kvm, 120000 with tcg
   */
  readonly bootTimeout?: number | undefined;
  /**
   * What carries the streams between host and guest: `'unix'`, a device of this package with Unix sockets, which needs
   * nothing from the host; or `'vhost'`, the host kernel's vhost-vsock with AF_VSOCK sockets.
   * @default 'unix'
   */
  readonly vsock?: 'unix' | 'vhost' | VhostVsockOptions | undefined;
  /**
   * The KVM device.
   * @default '/dev/kvm'
   */
  readonly kvmDevice?: string | undefined;
  /** Aborting it while the machine is being created stops and removes everything that was started. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Called when a phase of the start begins, for progress displays. It must not throw.
   * @default none
   */
  readonly onPhase?: ((phase: BootPhase) => void) | undefined;
  /**
   * Called with what the guest prints on its console, from its first byte; `vm.console` gives the same from `create` on.
   * The chunk is the callee's. An error that it throws becomes a process warning and does not stop the machine.
   * @default none
   */
  readonly onConsole?: ((chunk: Uint8Array) => void) | undefined;
}

/** A phase of a machine's start. */
export type BootPhase = 'choose' | 'kernel' | 'initramfs' | 'machine' | 'boot';
