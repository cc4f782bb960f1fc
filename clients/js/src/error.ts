/** What the server refused, or why it could not be asked. */
export class TidingsError extends Error {
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
