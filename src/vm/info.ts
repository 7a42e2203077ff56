// What a machine is: known when it has started, and the same until its end.

/** What a machine is, and where. */
export interface MachineInfo {
  /** Its name among the running machines of this user, as `vm.name`: the option `name`, else an id of 12 digits. */
  readonly id: string;
  readonly accelerator: 'kvm' | 'tcg';
  /** The guest's kernel: its path, and its release where the file tells it. */
  readonly kernel: { readonly image: string; readonly release: string | undefined };
  readonly cpus: number;
  readonly memoryBytes: number;
  /** The guest's context ID: one of its own on the host's vsock, else the same for all. */
  readonly cid: number;
  /** The process that runs the guest: QEMU's with `tcg`, this one with `kvm`. */
  readonly pid: number;
  /** The private folder with its sockets, `@NAME` or the id, which is gone when the machine is. */
  readonly runtimeFolder: string;
  /**
   * The Unix socket of its vsock, for programs of this user: `CONNECT PORT` reaches a port of the guest, `<socket>_PORT` is
   * reached by it (not with `vsock: 'vhost'`, where the guest reaches AF_VSOCK ports of this host).
   */
  readonly vsockSocket: string;
  /** When its processors began to run. */
  readonly startedAt: Date;
}
