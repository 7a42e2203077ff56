// What runs on any machine. The tests of __test__/e2e-kvm run in the lab: ava.kvm.config.mjs.
export default {
  extensions: ['ts', 'mjs'],
  files: ['__test__/**/*.test.{ts,mjs}', '!__test__/e2e-kvm/**'],
  // A process for each file: a crash of native code takes one file along, and leaks can be counted.
  workerThreads: false,
  concurrency: 2,
  timeout: '5m',
};
