// Import borders: dependencies point down only (ARCHITECTURE.md).
//   index.ts, cli → micro-vm, vm → accelerators, guest, vsock → host, cache, config, errors → native (one file)
//   doctor stands beside them: it looks at the parts below, and doctor/kvm/ gives failures of KVM their hints

/** @param {string} name @param {string} comment @param {object} from @param {object} to */
const forbid = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to });

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    forbid('no-circular', 'A cycle has no bottom to start reading at.', {}, { circular: true }),
    forbid('not-to-unresolvable', 'The import leads nowhere.', {}, { couldNotResolve: true }),
    forbid(
      'production-only',
      'The package may not need what only development installs.',
      { path: '^(src|index)' },
      { dependencyTypes: ['npm-dev', 'npm-no-pkg'] },
    ),
    forbid(
      'addon-in-one-file',
      'src/native.ts alone loads the addon.',
      { path: '^(src|index)', pathNot: '^src/(native|binding)\\.ts$' },
      { path: '^native/' },
    ),
    forbid(
      'nothing-imports-cli',
      'The command line is a user of the library.',
      { pathNot: '^src/cli/' },
      { path: '^src/cli/' },
    ),
    forbid(
      'nothing-imports-index',
      'index.ts is the table of contents for users; inside, import the part.',
      { path: '^src/', pathNot: '^src/(cli|kvm)/' },
      { path: '^index\\.ts$' },
    ),
    forbid(
      'micro-vm-from-above',
      'Only the public API and the command line stand above the MicroVM.',
      { path: '^src/', pathNot: '^src/(cli/|vm/|micro-vm\\.ts)' },
      { path: '^src/(micro-vm\\.ts|vm/)' },
    ),
    forbid(
      'accelerators-from-above',
      'Only the MicroVM chooses and starts accelerators.',
      { path: '^src/', pathNot: '^src/(cli/|vm/|micro-vm\\.ts|accelerators/)' },
      { path: '^src/accelerators/' },
    ),
    forbid(
      'doctor-of-any-host',
      'The analysis knows a host by its interface alone; what looks at the real one is inspect-host and inspect-all.',
      { path: '^src/doctor/(checks|kvm)/', pathNot: '^src/doctor/kvm/hint\\.ts$' },
      { path: '^(src/(native|binding)|src/doctor/inspect-)' },
    ),
    forbid(
      'doctor-from-above',
      'What the doctor looks at does not know that it is looked at.',
      { path: '^src/(host|guest|vsock|cache|kvm)/' },
      { path: '^src/doctor/' },
    ),
    forbid(
      'hints-of-kvm-alone',
      'Below the machine only the analysis of the KVM device is used; the whole doctor would bring all its checks.',
      { path: '^src/(accelerators|native-error)' },
      { path: '^src/doctor/', pathNot: '^src/doctor/(kvm/|inspect-host)' },
    ),
    forbid(
      'config-is-data',
      'Configuration is plain data: it knows nothing that runs.',
      { path: '^src/config/' },
      { path: '^src/', pathNot: '^src/(config/|errors\\.ts)' },
    ),
    forbid('errors-stand-alone', 'Every part throws them.', { path: '^src/errors\\.ts$' }, { path: '^src/' }),
    forbid(
      'kvm-stands-alone',
      'The low-level face is used without the MicroVM.',
      { path: '^src/kvm/' },
      { path: '^src/', pathNot: '^src/(kvm/|native|binding|errors)' },
    ),
    forbid(
      'shares-know-no-machine',
      'A daemon serves any virtual machine monitor.',
      { path: '^src/virtio-fs/' },
      { path: '^src/', pathNot: '^src/(virtio-fs/|config/|host/|native|binding|errors)' },
    ),
    forbid(
      'ring3-stands-alone',
      'Programs without a kernel are run without the MicroVM.',
      { path: '^src/ring3/' },
      { path: '^src/', pathNot: '^src/(ring3/|config/|native|binding|errors)' },
    ),
    forbid(
      'guest-knows-no-machine',
      'Kernels and initramfs are the same for all accelerators.',
      { path: '^src/guest/' },
      { path: '^src/(vsock|native)' },
    ),
    forbid(
      'vsock-knows-no-machine',
      'The channel works on any stream between a host and a guest.',
      { path: '^src/vsock/' },
      { path: '^src/(guest|native|micro-vm)' },
    ),
    forbid(
      'guest-api-knows-no-machine',
      'The client of the agent API works on any stream to a guest.',
      { path: '^src/guest-api/' },
      { path: '^src/', pathNot: '^src/(guest-api|vsock|host|config|errors)' },
    ),
  ],
  options: {
    doNotFollow: { path: ['node_modules', '^dist', '^native'] },
    exclude: { path: '\\.d\\.ts$' },
    parser: 'swc',
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.mjs', '.json'] },
  },
};
