// The exit codes of the command line: those of `timeout` and `docker run`, which scripts know.

/** The command ran longer than `--timeout`. */
export const TIMED_OUT = 124;
/** microvm itself failed: bad options, no kernel, the guest did not boot. */
export const OWN_FAILURE = 125;
/** The program was found, but cannot be run. */
export const CANNOT_RUN = 126;
/** The program was not found. */
export const NOT_FOUND = 127;
/** What a signal's number is added to. */
export const SIGNALED = 128;
/** Ctrl-C: 128 + SIGINT. */
export const INTERRUPTED = 130;
/** SIGTERM: 128 + 15. */
export const TERMINATED = 143;
