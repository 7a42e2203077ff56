// What a running machine takes of this host, and what its devices did: the same figures from both accelerators.

/** What a machine takes of this host, and what its devices did, at one moment. What cannot be told is undefined. */
export interface HostMetrics {
  /**
   * Processor time since the start, in milliseconds: the guest's, and of what is emulated for it. The daemons of mounts are
   * processes of their own, and the kernel's vhost-vsock is the kernel's: they do not count.
   */
  readonly cpu: {
    /** All of it. */
    readonly totalMs: number;
    /** Of the thread of each virtual processor: in the guest, and in what is emulated for it at once. */
    readonly vcpusMs: readonly number[];
  };
  /** Memory of this host, in bytes. */
  readonly memory: {
    /**
     * What the machine holds. With `tcg` all that QEMU's process has resident; with `kvm` it is `guestBytes`, as the monitor's
     * own few MiB are part of this process and cannot be told from the rest of it.
     */
    readonly residentBytes: number;
    /** The same for `tcg`, where shared memory counts by its share. Undefined with `kvm`, and where the kernel does not tell. */
    readonly proportionalBytes: number | undefined;
    /**
     * What is held for the guest's memory: pages that were used at some time, which never get fewer. With `kvm` also those
     * that are swapped out.
     */
    readonly guestBytes: number;
  };
  /** The virtio devices: vsock, rng, then the shares of mounts and of a root folder in their order. */
  readonly devices: readonly DeviceMetrics[];
}

/** What a virtio device did since the start. The driver's part of it is as the guest wants it to be. */
export interface DeviceMetrics {
  /** Sockets, entropy, or files of a mount. */
  readonly type: 'vsock' | 'rng' | 'fs';
  /**
   * How often its driver took an interrupt, which may stand for several used buffers and queues. Undefined with `tcg`: only
   * QEMU sees it.
   */
  readonly acknowledgedInterrupts: number | undefined;
  /**
   * Its queues: of a vsock those to receive, to transmit, and for events, of an rng the one for requests. Undefined where
   * another process or the kernel runs them: an `fs`, whose daemon does, a vsock with `vsock: 'vhost'`, QEMU's rng.
   */
  readonly queues: readonly QueueMetrics[] | undefined;
}

/** What a virtio queue did since the start. */
export interface QueueMetrics {
  /** Notifications of the driver's. With `tcg` those that came before the device looked count as one. */
  readonly kicks: number;
  /** Interrupts that the device raised for used buffers. */
  readonly interrupts: number;
  /** Buffers that the device gave back to the driver. */
  readonly buffers: number;
  /** Bytes that it read from them or wrote to them, with the headers of the device's protocol. */
  readonly bytes: number;
}
