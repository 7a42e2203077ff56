// What runs on any machine. __test__/e2e-kvm runs in the lab (ava.kvm.config.mjs), __test__/e2e/long in the soak.
export default {
  extensions: ['ts', 'mjs'],
  files: ['__test__/**/*.test.{ts,mjs}', '!__test__/e2e-kvm/**', '!__test__/e2e/long/**'],
  // A process for each file: a crash of native code takes one file along, and leaks can be counted.
  workerThreads: false,
  concurrency: 2,
  timeout: '5m',
};
