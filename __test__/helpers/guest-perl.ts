// Sockets of a guest that runs from this host's files: Perl is on every Debian, and knows AF_VSOCK by its number.

import { once } from 'node:events';
import type { GuestProcess, MicroVM } from '../../index.ts';

/** `struct sockaddr_vm`. */
const ADDRESS = 'sub at { pack("SSLLx4", 40, 0, @_) }';
/** Answers each connection with what it got, once the other side has ended. */
const ANSWER = 'while (accept(C, L)) { local $/; my $x = <C>; syswrite C, "got $x"; close C }';
/** Says something, ends its half, and prints what comes back. */
const ASK = 'syswrite S, $ARGV[0]; shutdown(S, 1); local $/; print <S>';

function perl(vm: MicroVM, program: string, args: readonly string[] = []): GuestProcess {
  return vm.exec('perl', ['-e', `$| = 1; ${ADDRESS}; ${program}`, ...args], { reject: false });
}

/** A server in the guest; a process itself would be waited for by whoever awaits it. */
export interface GuestServer {
  end(): Promise<void>;
}

async function listening(server: GuestProcess): Promise<GuestServer> {
  await Promise.race([once(server.stdout, 'data'), server.then(({ stderr }) => Promise.reject(new Error(stderr)))]);
  server.stdout.resume();
  return {
    async end() {
      await server.kill('SIGKILL');
      await server;
    },
  };
}

/** A server at a vsock port of the guest, once it listens. */
export function vsockServer(vm: MicroVM, port: number): Promise<GuestServer> {
  const open = `socket(L, 40, 1, 0) && bind(L, at(${port}, 0xffffffff)) && listen(L, 64) or die $!; print "up";`;
  return listening(perl(vm, `${open} ${ANSWER}`));
}

/** A server at a TCP port of the guest, or at a Unix socket. */
export function guestServer(vm: MicroVM, at: number | string): Promise<GuestServer> {
  const open =
    typeof at === 'number'
      ? `use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:${at}", Listen => 64, ReuseAddr => 1) or die $!; *L = $l;`
      : `use IO::Socket::UNIX; my $l = IO::Socket::UNIX->new(Local => "${at}", Listen => 64) or die $!; *L = $l;`;
  return listening(perl(vm, `${open} print "up"; ${ANSWER}`));
}

/** Loads a module into the guest's kernel: its file is in the guest. */
export async function loadModule(vm: MicroVM, file: string): Promise<void> {
  const SYS_FINIT_MODULE = 313;
  const load = `open(F, "<", $ARGV[0]) or die $!; my $none = ""; syscall(${SYS_FINIT_MODULE}, fileno(F), $none, 0) == 0 or die $!`;
  const { exitCode, stderr } = await perl(vm, load, [file]);
  if (exitCode !== 0) throw new Error(stderr);
}

/** What a program of the guest hears from a vsock port: of the host (2), or of another context ID. */
export function askVsock(vm: MicroVM, port: number, text: string, cid = 2): GuestProcess {
  const open = `socket(S, 40, 1, 0); connect(S, at(${port}, ${cid})) or do { print "no: ", $!+0; exit };`;
  return perl(vm, `${open} ${ASK}`, [text]);
}

/** What a program of the guest hears from a vsock port of the host by this many connections, made before any is used. */
export function askVsockAtOnce(vm: MicroVM, port: number, count: number): GuestProcess {
  const open =
    'my @all; for (1 .. $ARGV[1]) { socket(my $s, 40, 1, 0); connect($s, at($ARGV[0], 2)) or do { print "no: ", $!+0; exit }; push @all, $s }';
  const ask = 'for (0 .. $#all) { syswrite $all[$_], "$_"; shutdown($all[$_], 1) }';
  const hear = 'for my $s (@all) { local $/; print <$s>, "\\n" }';
  return perl(vm, `${open} ${ask} ${hear}`, [`${port}`, `${count}`]);
}

/** What a program of the guest hears from a TCP port of the guest. */
export function askPort(vm: MicroVM, port: number, text: string): GuestProcess {
  const open = `use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:${port}") or do { print "no: ", $!+0; exit }; *S = $s;`;
  return perl(vm, `${open} ${ASK}`, [text]);
}
