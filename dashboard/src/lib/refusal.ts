/** Refusals in the words of whoever is refused: what happened, and that nothing was changed. */
import { TidingsError } from 'tidings-client';
import { quoted } from './format';

const WORDS: Record<string, string> = {
  offline: 'The server cannot be reached, so nothing was changed. Try again when the page is live.',
  job_not_waiting: 'It does not wait any more, so its priority cannot be changed.',
  job_ended: 'It has ended already, so there is nothing to cancel.',
  job_not_ended: 'It has not ended yet, so it cannot run again.',
  job_not_found: 'The server knows no such job any more.',
  job_is_external: 'It runs outside of this server: whoever runs it starts it again.',
  nothing_failed: 'None of its cases failed.',
  failures_unknown: 'It is not known of each case whether it failed. Run all of it again.',
};

/** What `error` says, about `what` if that is not clear from where it is shown. */
export function told(error: unknown, what = ''): string {
  const words = error instanceof TidingsError ? WORDS[error.code] : undefined;
  const text = words ?? quoted((error as Error).message);
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return what ? `${what}: ${sentence}` : sentence;
}
