// The exit codes of the command line: those of `timeout` and `docker run`, which scripts know.

/** The command ran longer than `--timeout`. */
export const TIMED_OUT = 124;
/** microvm itself failed: bad options, no kernel, the guest did not boot. */
export const OWN_FAILURE = 125;
/** Ctrl-C: 128 + SIGINT. */
export const INTERRUPTED = 130;
/** SIGTERM: 128 + 15. */
export const TERMINATED = 143;
