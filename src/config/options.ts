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

/** A folder that the guest runs from. */
export interface RootfsFolder {
  /** Path of the folder on this host. */
  readonly dir: string;
  /**
   * Write the guest's changes to the folder; else they stay in its memory and are lost at its end.
   * @default false
   */
  readonly writable?: boolean | undefined;
}

/** A folder or file of this host that the guest gets. */
export interface MountOptions {
  /** Path of the folder or file on this host. */
  readonly source: string;
  /**
   * Refuse the guest's changes.
   * @default false
   */
  readonly readonly?: boolean | undefined;
  /**
   * What the guest may keep in memory: `'auto'` (for a second), `'always'` (for a day: nobody else changes the folder),
   * `'metadata'` (names and attributes for a day, no content), `'never'`.
   * @default 'auto'
   */
  readonly cache?: 'auto' | 'always' | 'metadata' | 'never' | undefined;
  /**
   * Let the guest delay its writes. Only for folders that nobody else changes.
   * @default false
   */
  readonly writeback?: boolean | undefined;
  /**
   * Let the guest read and set extended attributes.
   * @default false
   */
  readonly xattr?: boolean | undefined;
  /**
   * POSIX access control lists, which are the host's own: the same users on both sides. It implies `xattr`, and goes with
   * neither `translateUid` nor `translateGid`. As an ordinary user it takes the sandbox, and root in the guest is that user.
   * @default false
   */
  readonly posixAcl?: boolean | undefined;
  /**
   * How user ids translate, as `microvm virtiofsd --translate-uid` takes it.
   * @default as root none; else this user's files are root's in the guest
   */
  readonly translateUid?: readonly string[] | undefined;
  /**
   * The same for group ids.
   * @default as root none; else this user's group is root's in the guest
   */
  readonly translateGid?: readonly string[] | undefined;
  /**
   * Threads that work on requests, 0 to 64; with 0 the queue's own thread does.
   * @default 0
   */
  readonly threads?: number | undefined;
  /**
   * Request queues, 1 to 63, each with a thread where there are no `threads`. Guests use more than one from Linux 6.11 on.
   * @default 1
   */
  readonly requestQueues?: number | undefined;
  /**
   * How the daemon is kept from the rest of this host. `'none'` for hosts that refuse namespaces: a guest that breaks into
   * the daemon is then this user.
   * @default 'namespace'
   */
  readonly sandbox?: 'namespace' | 'none' | undefined;
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

/** A port of the guest on this host. */
export interface ForwardOptions {
  /** The guest's TCP port, 1 to 65535, or the absolute path of a Unix socket in the guest. */
  readonly guest: number | string;
  /**
   * Where this host listens: a TCP port, 0 for a free one, or the path of a Unix socket to make. A port is a number: text of
   * digits alone is refused.
   * @default 0
   */
  readonly host?: number | string | undefined;
  /**
   * The address of this host to listen at, for a TCP port. `'0.0.0.0'` and `'::'` let other computers in.
   * @default '127.0.0.1'
   */
  readonly hostAddress?: string | undefined;
}

/** A service of this host at a port of the guest. */
export interface ReverseOptions {
  /**
   * Where the guest listens: a TCP port of its loopback interface, 0 for a free one, or the absolute path of a Unix socket
   * to make there, which every user of the guest may connect to.
   */
  readonly guest: number | string;
  /** The service: a TCP port of 127.0.0.1 or of another address, or the path of a Unix socket that is more than digits. */
  readonly host: number | string | { readonly port: number; readonly address?: string | undefined };
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
   * `{ dir }` runs the guest from a folder by virtio-fs instead, its changes kept in memory; `'host'` does so from this
   * host's own root folder, which lets the guest read all that this user may read.
   * Write a relative path with `./` when it is called `default`, `none` or `host`.
   * @default 'default'
   */
  readonly rootfs?: string | RootfsFolder | undefined;
  /**
   * Folders and files of this host in the guest: by path in the guest the path here, or an object with options.
   * @default {}
   */
  readonly mounts?: Readonly<Record<string, string | MountOptions>> | undefined;
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
   * What other processes of this user find the machine by, as `microvm cp` does: up to 32 letters, digits, dots, hyphens and
   * underscores. No two machines that run have the same.
   * @default an id of 12 digits
   */
  readonly name?: string | undefined;
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
   * Ports of the guest on this host, as `vm.forward` takes them. This host listens from before the boot on, so that a
   * port that is taken is told at once.
   * @default []
   */
  readonly ports?: readonly ForwardOptions[] | undefined;
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
