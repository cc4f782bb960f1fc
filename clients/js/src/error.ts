/** What the server refused, or why it could not be asked. */
export class TidingsError extends Error {
  /** Tells it from other errors, across copies of this package too. */
  override name = 'TidingsError';

  constructor(
    /** For programs: the server's own codes, or `offline`, `timeout`, `closed`. */
    readonly code: string,
    message: string,
    /** The status of the HTTP answer, where there was one. */
    readonly status?: number,
  ) {
    super(message);
  }
}

/** Calls what is not ours. Its errors are for whoever wrote it, and must not leave us half way. */
export function tell(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
