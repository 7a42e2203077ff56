// What takes too long for `npm test` and runs on any machine: parts of `npm run soak`.
export default {
  extensions: ['ts'],
  files: ['__test__/e2e/long/**/*.test.ts'],
  workerThreads: false,
  concurrency: 1,
  timeout: '5m',
};
