/** The state of a test, kept up to date by its messages: the same fold as the server's own. */
import type { MessageOf } from './message.js';
import type { Snapshot, TestFields } from './types.js';

/** How many failures a snapshot names; the counts tell of the rest. */
const MAX_FAILURES = 50;
const ENDS = { 'test:completed': 'completed', 'test:failed': 'failed', 'test:cancelled': 'cancelled' } as const;

/** A message that tells of a test: of its own channel, or of those that tell of all tests. */
export type TestMessage = MessageOf<`test-progress-${string}` | 'test-updates' | 'test-history-updates' | `stress-test-${string}`>;

/** Whether nothing follows. */
export function hasEnded({ state }: Pick<Snapshot, 'state'>): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}

/**
 * The state after `message`; the given one is left as it is. Without one the test begins with this message. Its
 * position is followed in the test's own channel only: other channels count for themselves.
 *
 * The server takes no message of an attempt that is over. One that looks like that is therefore the first of another
 * life of the test, which began when it was submitted again: attempts count from 1 then.
 */
export function fold(before: Snapshot | undefined, message: TestMessage): Snapshot {
  const data = message.data as TestFields;
  let test: Snapshot = before ? { ...before } : empty(message, data);
  if (message.channel === `test-progress-${test.testId}`) {
    test.epoch = message.epoch;
    test.offset = message.offset;
  }
  if (!message.event.startsWith('test:')) return test;
  const attempt = data.attempt ?? Math.max(1, test.attempt);
  const isOver = hasEnded(test) || (test.state === 'retrying' && message.event !== 'test:cancelled');
  const again = attempt < test.attempt || (attempt === test.attempt && isOver);
  if (again) test = begin({ ...test, jobId: undefined, queuedAt: undefined }, attempt);
  else if (attempt > test.attempt) test = begin(test, attempt);
  if (data.testType) test.testType = data.testType;
  switch (message.event) {
    case 'test:started':
      test.state = 'running';
      test.startedAt = data.startedAt ?? message.timestamp;
      if (data.jobId) test.jobId = data.jobId;
      break;
    case 'test:progress':
      test.state = 'running';
      test.startedAt ??= message.timestamp;
      show(test, data);
      break;
    case 'test:completed':
    case 'test:failed':
    case 'test:cancelled':
      if (message.event === 'test:completed') test.progress = 100;
      end(test, ENDS[message.event], data, message.timestamp);
  }
  return test;
}

function empty({ epoch }: TestMessage, data: TestFields): Snapshot {
  const { testId = '', testType = '' } = data;
  return { testId, testType, state: 'queued', attempt: 0, ...nothing(), epoch, offset: 0 };
}

function nothing() {
  return { progress: 0, counts: { passed: 0, failed: 0, skipped: 0 }, current: [], metrics: {}, failures: [] };
}

/** A new attempt starts from nothing. */
function begin({ testId, testType, jobId, queuedAt, epoch, offset }: Snapshot, attempt: number): Snapshot {
  const test: Snapshot = { testId, testType, state: 'running', attempt, ...nothing(), epoch, offset };
  if (jobId) test.jobId = jobId;
  if (queuedAt) test.queuedAt = queuedAt;
  return test;
}

/** Progress is absolute and complete: what it does not name is not there. */
function show(test: Snapshot, data: TestFields): void {
  test.progress = data.progress ?? test.progress;
  const { passed, failed = 0, skipped = 0, total } = data.counts ?? { passed: data.completed };
  test.counts = { passed: passed ?? 0, failed, skipped, total: total ?? data.total };
  test.current = data.current ?? [];
  test.metrics = data.metrics ?? {};
  test.failures = (data.failures ?? []).slice(0, MAX_FAILURES);
  test.message = data.message;
  test.etaMs = data.etaMs;
  test.slower = data.slower;
  test.stalled = data.stalled;
}

function end(test: Snapshot, state: 'completed' | 'failed' | 'cancelled', data: TestFields, timestamp: number): void {
  const retries = state === 'failed' && data.willRetry === true;
  test.state = retries ? 'retrying' : state;
  test.current = [];
  test.etaMs = undefined;
  test.slower = undefined;
  test.stalled = undefined;
  test.history = data.history;
  test.error = data.error;
  test.results = data.results;
  if (data.counts) test.counts = data.counts;
  if (data.metrics) test.metrics = data.metrics;
  if (data.failures) test.failures = data.failures.slice(0, MAX_FAILURES);
  if (data.message) test.message = data.message;
  test.endedAt = retries ? undefined : (data.completedAt ?? timestamp);
}
