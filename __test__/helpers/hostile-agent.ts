// An agent whose answers the test decides: an HTTP/2 server on a Unix socket of its own.

import { once } from 'node:events';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

import { temporaryFolder } from './temporary-folder.ts';

/** Gives the server's path. `path` of a request is what the agent is asked for. */
export async function hostileAgent(
  t: ExecutionContext,
  answer: (stream: ServerHttp2Stream, path: string) => void,
): Promise<string> {
  const server = createServer() as Http2Server & NodeJS.EventEmitter;
  const sessions = new Set<ServerHttp2Session>();
  // A connection that is reset after its session has ended is nobody's else.
  server.on('connection', (socket: Socket) => void socket.on('error', () => {}));
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => {});
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    answer(stream, String(headers[':path']));
  });
  const path = join(await temporaryFolder(t), 'api');
  server.listen(path);
  await once(server, 'listening');
  // After what the test itself has to take down, which comes later and goes first.
  t.teardown(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return path;
}
