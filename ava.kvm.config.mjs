// The tests that take a KVM which runs guests natively: `npm run lab -- npx ava --config ava.kvm.config.mjs`.
export default {
  extensions: ['ts'],
  files: ['__test__/e2e-kvm/**/*.test.ts'],
  workerThreads: false,
  concurrency: 1,
  timeout: '5m',
};
