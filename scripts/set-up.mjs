// Makes a fresh Debian machine ready: `node scripts/set-up.mjs [--test] [--check] [--update-kernel] [--only STEP,…]`.
// Each step looks first and does only what is missing, so a second run takes a second and no network.

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildNative, buildTypeScript, findCargo, installRustComponents } from './set-up/builds.mjs';
import { CHECK_PACKAGES, RUN_PACKAGES, TEST_PACKAGES, installPackages } from './set-up/debian-packages.mjs';
import { BENCH_KERNEL, GUEST_KERNEL, LAB_KERNEL, fetchKernel } from './set-up/guest-kernel.mjs';
import { fetchLabQemu } from './set-up/lab-qemu.mjs';
import { installNodeModules } from './set-up/node-modules.mjs';
import { SetUpError, formatTime, step } from './set-up/report.mjs';
import { CARGO_DENY, PJDFSTEST, VIRTIOFSD, installTool } from './set-up/tools.mjs';
import { makeUserland } from './set-up/userland.mjs';

const USAGE = `Usage: node scripts/set-up.mjs [--test] [--check] [--update-kernel] [--only STEP,…]

  --test            also what the tests need: the lab's kernel and QEMU, virtiofsd
  --check           also what the checks need: cargo-deny, libFuzzer's compiler
  --update-kernel   look for newer Debian kernels (those in the cache are kept otherwise)
  --only STEP,…     these steps only

`;

/**
 * @param {{test: boolean, check: boolean, updateKernel: boolean}} options
 * @returns {Record<string, {title: string, work: () => unknown, when?: boolean}>}
 */
function steps({ test, check, updateKernel }) {
  return {
    packages: {
      title: 'Debian packages',
      work: () => installPackages({ ...RUN_PACKAGES, ...(test && TEST_PACKAGES), ...(check && CHECK_PACKAGES) }),
    },
    npm: { title: 'npm packages', work: installNodeModules },
    kernel: { title: 'Guest kernel', work: () => fetchKernel(GUEST_KERNEL, { update: updateKernel }) },
    userland: { title: 'Guest userland', work: makeUserland },
    native: { title: 'Addon and guest agent', work: buildNative },
    typescript: { title: 'TypeScript', work: buildTypeScript },
    'lab-kernel': {
      title: "The lab's kernel",
      when: test,
      work: () => fetchKernel(LAB_KERNEL, { update: updateKernel }),
    },
    'bench-kernel': {
      title: 'A newer guest kernel',
      // By name only.
      when: false,
      work: () => fetchKernel(BENCH_KERNEL, { update: updateKernel }),
    },
    'lab-qemu': { title: "The lab's QEMU", when: test, work: fetchLabQemu },
    virtiofsd: { title: 'virtiofsd', when: test, work: () => installTool(VIRTIOFSD) },
    pjdfstest: {
      title: 'pjdfstest',
      // By name only.
      when: false,
      work: () => installTool(PJDFSTEST),
    },
    components: { title: 'Rust components', when: check, work: installRustComponents },
    'cargo-deny': { title: 'cargo-deny', when: check, work: () => installTool(CARGO_DENY) },
  };
}

/**
 * @param {{test?: boolean, check?: boolean, updateKernel?: boolean, only?: string[]}} [options]
 */
export async function setUp({ test = false, check = false, updateKernel = false, only } = {}) {
  const started = performance.now();
  // What apt and dpkg say is read, so not in the user's language.
  process.env.LC_ALL = 'C.UTF-8';
  console.log('Set-up');
  const all = steps({ test, check, updateKernel });
  const unknown = only?.find((name) => !(name in all));
  if (unknown) throw new SetUpError(`There is no step "${unknown}"`, { hint: `Steps: ${Object.keys(all).join(', ')}` });
  if (only === undefined) findCargo();
  for (const [name, { title, work, when = true }] of Object.entries(all)) {
    if (only ? only.includes(name) : when) await step(title, work);
  }
  console.log(`  Ready in ${formatTime(performance.now() - started)}`);
}

/** Prints an error as a person wants it, and ends the process. @param {unknown} error @returns {never} */
export function fail(error) {
  if (error instanceof SetUpError) {
    console.error(`error: ${error.message}`);
    if (error.hint) console.error(`hint: ${error.hint}`);
  } else {
    console.error(error);
  }
  process.exit(1);
}

if (fileURLToPath(import.meta.url) === process.argv[1]) {
  try {
    const { values } = parseArgs({
      options: {
        test: { type: 'boolean' },
        check: { type: 'boolean' },
        'update-kernel': { type: 'boolean' },
        only: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help) {
      process.stdout.write(USAGE);
    } else {
      await setUp({
        test: values.test,
        check: values.check,
        updateKernel: values['update-kernel'],
        only: values.only?.split(','),
      });
    }
  } catch (error) {
    fail(error?.code?.startsWith('ERR_PARSE_ARGS') ? new SetUpError(error.message, { hint: USAGE }) : error);
  }
}
