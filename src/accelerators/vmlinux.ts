import type { GuestKernel } from '../guest/kernel.ts';

/** The file to boot for a kernel. */
export async function bootableImage(kernel: GuestKernel): Promise<string> {
  return kernel.image;
}
