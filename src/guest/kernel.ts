/** A kernel that was found and looks bootable. */
export interface GuestKernel {
  /** Absolute path. */
  readonly image: string;
  readonly format: 'bzImage' | 'elf';
  /** As `uname -r` shows it in the guest; undefined when the file does not tell. */
  readonly release: string | undefined;
  /** Folder with `modules.dep`; undefined when there is none (everything has to be built in). */
  readonly modules: string | undefined;
  /** Where it came from. */
  readonly source: 'option' | 'environment' | 'cache' | 'boot';
}

/** Finds the kernel to boot and checks it. */
export async function findKernel(
  _asked: { readonly image: string; readonly modules: string | undefined } | undefined,
): Promise<GuestKernel> {
  throw new Error('Not written yet');
}
