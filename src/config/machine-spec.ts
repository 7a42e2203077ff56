/** What the guest's root file system is made from. */
export type RootfsSpec =
  | { readonly kind: 'default' }
  | { readonly kind: 'none' }
  /** A folder or a cpio archive; which one it is shows when the file is looked at. */
  | { readonly kind: 'path'; readonly path: string }
  /** A folder that the guest runs from, by virtio-fs. */
  | { readonly kind: 'share'; readonly path: string; readonly writable: boolean };

/** A folder or file of this host in the guest. */
export interface MountSpec {
  /** Where in the guest. */
  readonly target: string;
  readonly source: string;
  readonly readonly: boolean;
  readonly cache: 'auto' | 'always' | 'metadata' | 'never';
  readonly writeback: boolean;
  readonly xattr: boolean;
  readonly posixAcl: boolean;
  /** Undefined: as it suits the user of this process. */
  readonly translateUid: readonly string[] | undefined;
  readonly translateGid: readonly string[] | undefined;
  readonly threads: number;
  readonly requestQueues: number;
  readonly sandbox: 'namespace' | 'none';
}

/** What carries the streams between host and guest. */
export type VsockSpec =
  | { readonly type: 'unix' }
  | {
      readonly type: 'vhost';
      /** Undefined: a free one. */
      readonly cid: number | undefined;
      /** The host's, where the agent reports. Undefined: the usual one. */
      readonly port: number | undefined;
      readonly device: string;
    };

/** A socket of this host: a TCP port, or the absolute path of a Unix socket. */
export type HostAddress = { readonly port: number; readonly address: string } | { readonly path: string };

/** A port of the guest on this host. */
export interface ForwardSpec {
  /** A TCP port, or the path of a Unix socket. */
  readonly guest: number | string;
  /** Where this host listens; port 0 is a free one. */
  readonly host: HostAddress;
}

/** A service of this host at a port of the guest. */
export interface ReverseSpec {
  /** Where the guest listens: a TCP port, 0 for a free one, or the path of a Unix socket. */
  readonly guest: number | string;
  readonly host: HostAddress;
}

/** A machine as it was asked for: plain data, every default filled in, every path absolute. Nothing on disk was looked at yet. */
export interface MachineSpec {
  readonly accelerator: 'auto' | 'kvm' | 'tcg';
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly hugePages: boolean;
  /** Undefined: search for one. */
  readonly kernel: { readonly image: string; readonly modules: string | undefined } | undefined;
  readonly rootfs: RootfsSpec;
  /** Each after those that its target lies in. */
  readonly mounts: readonly MountSpec[];
  /** The user's words for the kernel command line, to be appended to ours. */
  readonly commandLine: string;
  readonly env: Readonly<Record<string, string>>;
  readonly hostname: string;
  /** Undefined: it gets an id. */
  readonly name: string | undefined;
  /** It depends on the accelerator, which may be chosen later. */
  readonly bootTimeoutMs: { readonly kvm: number; readonly tcg: number };
  readonly vsock: VsockSpec;
  /** Ports of the guest that this host listens for from before the boot on. */
  readonly ports: readonly ForwardSpec[];
  readonly kvmDevice: string;
}
