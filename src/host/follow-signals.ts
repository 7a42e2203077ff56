/** A signal that is aborted with the first of several others. */
export interface FollowedSignals {
  readonly signal: AbortSignal;
  /** Follows no longer. A signal that lives long would otherwise remember every follower. */
  release(): void;
}

/** `AbortSignal.any` for a limited time: with it, each use would leave something on a signal that lives as long as a machine. */
export function followSignals(...sources: readonly (AbortSignal | undefined)[]): FollowedSignals {
  const controller = new AbortController();
  const listeners = sources
    .filter((source) => source !== undefined)
    .map((source) => {
      const abort = (): void => controller.abort(source.reason);
      if (source.aborted) abort();
      else source.addEventListener('abort', abort, { once: true });
      return { source, abort };
    });
  return {
    signal: controller.signal,
    release() {
      for (const { source, abort } of listeners) source.removeEventListener('abort', abort);
    },
  };
}
