// `microvm virtiofsd`: the daemon that shares host files, for other virtual machine monitors.

import { runDaemon } from '../../virtio-fs/foreground.ts';
import type { HelpPage } from '../help.ts';

export const virtiofsdPage: HelpPage = {
  summary: 'Serves a host folder by virtio-fs to any monitor that speaks vhost-user.',
  usage: 'virtiofsd --shared-dir DIR --socket-path SOCKET [options]',
  options: { help: { type: 'boolean', help: 'Show all options, which are those of virtiofsd 1.14.0 and three more' } },
  printsOwnHelp: true,
  examples: [
    ['microvm virtiofsd --shared-dir . --socket-path /tmp/fs.sock --readonly', 'Serve this folder, without changes'],
  ],
};

/** Runs the daemon until it ends; resolves with its exit code. */
export async function virtiofsd(argv: readonly string[]): Promise<number> {
  return runDaemon(argv);
}
