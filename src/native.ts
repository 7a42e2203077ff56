// The only file that loads the native addon. It is looked for in this package's own native/ folder (a checkout after
// `npm run build:native`), then in the package for this platform that npm installs beside this one.

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Binding } from './binding.ts';
import { MicroVMError } from './errors.ts';

const AGENT = 'microvm-agent';
const VIRTIOFSD = 'microvm-virtiofsd';
/** Platforms that are built, as `<platform>-<arch>-<libc>`. */
const PLATFORMS: readonly string[] = ['linux-x64-gnu'];

const require = createRequire(import.meta.url);
let loaded: { readonly binding: Binding; readonly folder: string; readonly file: string } | undefined;

/**
 * The addon. It is loaded by the first call.
 *
 * @throws {MicroVMError} `ERR_NATIVE_MISSING` where there is none for this platform, or where it cannot be loaded.
 */
export function loadBinding(): Binding {
  return load().binding;
}

/**
 * Path of the guest agent's executable.
 *
 * @throws {MicroVMError} `ERR_AGENT_MISSING`, or as {@link loadBinding}.
 */
export function agentPath(): string {
  const agent = path.join(load().folder, AGENT);
  if (existsSync(agent)) return agent;
  throw new MicroVMError('ERR_AGENT_MISSING', `The guest agent is missing: ${agent}`, { hint: installHint() });
}

/**
 * Path of the executable that shares host files.
 *
 * @throws {MicroVMError} `ERR_VIRTIOFSD_MISSING`, or as {@link loadBinding}.
 */
export function virtiofsdPath(): string {
  const daemon = path.join(load().folder, VIRTIOFSD);
  if (existsSync(daemon)) return daemon;
  throw new MicroVMError('ERR_VIRTIOFSD_MISSING', `The daemon that shares host files is missing: ${daemon}`, {
    hint: installHint(),
  });
}

/** What is installed of this package. */
export interface PackageFacts {
  readonly version: string;
  /** As `linux-x64-gnu`. */
  readonly platform: string;
  /** Where the addon was loaded from and what it was built as; or why it cannot be loaded. */
  readonly addon:
    | { readonly loaded: true; readonly file: string; readonly version: string | undefined }
    | { readonly loaded: false; readonly message: string; readonly hint: string | undefined };
  /** Path of the guest agent; undefined where it is missing. */
  readonly agent: string | undefined;
}

/** Looks at the installed package; a failure to load the addon is an answer here. */
export function packageFacts(): PackageFacts {
  const common = { version: packageVersion(), platform: platformName() };
  try {
    const { binding, folder, file } = load();
    const agent = path.join(folder, AGENT);
    // One that was built before it could be asked has no such function.
    const built = (binding as Partial<Binding>).addonVersion?.();
    return {
      ...common,
      addon: { loaded: true, file, version: built },
      agent: existsSync(agent) ? agent : undefined,
    };
  } catch (error) {
    const hint = error instanceof MicroVMError ? error.hint : undefined;
    return { ...common, addon: { loaded: false, message: messageOf(error), hint }, agent: undefined };
  }
}

function load(): NonNullable<typeof loaded> {
  if (loaded) return loaded;
  const platform = platformName();
  const lookedAt: string[] = [];
  for (const folder of folders(platform, lookedAt)) {
    const file = path.join(folder, `microvm.${platform}.node`);
    lookedAt.push(file);
    if (!existsSync(file)) continue;
    try {
      loaded = { binding: require(file) as Binding, folder, file };
      return loaded;
    } catch (cause) {
      throw new MicroVMError('ERR_NATIVE_MISSING', `The native addon cannot be loaded: ${messageOf(cause)}`, {
        cause,
        hint: `${file} exists, but this system cannot load it. It needs glibc 2.34 or newer and Node 20.19 or newer.`,
        lookedAt,
      });
    }
  }
  throw new MicroVMError('ERR_NATIVE_MISSING', `There is no native addon for ${platform}`, {
    hint: PLATFORMS.includes(platform) ? installHint() : `Supported platforms: ${PLATFORMS.join(', ')}.`,
    lookedAt,
  });
}

function* folders(platform: string, lookedAt: string[]): Generator<string> {
  // From src/ in a checkout, from dist/src/ in a built package.
  yield fileURLToPath(new URL('../native', import.meta.url));
  yield fileURLToPath(new URL('../../native', import.meta.url));
  const name = `@hybrid/microvm-${platform}`;
  let manifest: string;
  try {
    manifest = require.resolve(`${name}/package.json`);
  } catch {
    lookedAt.push(name);
    return;
  }
  const expected = versionIn(ownManifest());
  const found = versionIn(manifest);
  if (found !== expected) {
    throw new MicroVMError('ERR_NATIVE_MISSING', `${name} has version ${found}, but @hybrid/microvm has ${expected}`, {
      hint: `Install both in the same version: npm install ${name}@${expected}`,
      lookedAt: [...lookedAt, manifest],
    });
  }
  yield path.dirname(manifest);
}

function ownManifest(): string {
  const candidates = ['../package.json', '../../package.json'].map((at) => fileURLToPath(new URL(at, import.meta.url)));
  return candidates.find((file) => existsSync(file)) ?? (candidates[0] as string);
}

/** The version of this package. */
export function packageVersion(): string {
  return versionIn(ownManifest());
}

function versionIn(manifest: string): string {
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}

function platformName(): string {
  if (process.platform !== 'linux') return `${process.platform}-${process.arch}`;
  return `linux-${process.arch}-${existsSync('/etc/alpine-release') ? 'musl' : 'gnu'}`;
}

function installHint(): string {
  return 'In a checkout run "npm run build:native"; else reinstall @hybrid/microvm without --omit=optional.';
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
