// What the contract says about messages, as assertions.
import assert from 'node:assert/strict';

const HIGH = 3;
const NORMAL = 2;
const PRIORITIES = { 'test:log': 1, 'test:progress': NORMAL, 'queue:job:progress': NORMAL, 'queue:job:added': NORMAL };
const CLOCK_MS = 120_000;

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

export function assertEnvelope(message, event) {
  const text = JSON.stringify(message);
  assert.match(message.id, /^[A-Za-z0-9_.:-]{1,128}$/, text);
  assert.equal(message.event, event, text);
  assert.match(message.channel, /^[A-Za-z0-9_.:-]+$/, text);
  assert.ok([1, 2, 3, 4].includes(message.priority), text);
  if (/^(test|queue):/.test(event)) assert.equal(message.priority, PRIORITIES[event] ?? HIGH, text);
  assert.ok(Number.isInteger(message.timestamp), text);
  assert.ok(Math.abs(Date.now() - message.timestamp) < CLOCK_MS, text);
  assert.ok(message.userId === undefined || typeof message.userId === 'string', text);
  assert.ok(isObject(message.data), text);
  assert.ok(typeof message.epoch === 'string' && message.epoch.length > 0, text);
  assert.ok(Number.isInteger(message.offset) && message.offset >= 1, text);
  // Absent when nothing was spared, never 0.
  assert.ok(message.conflated === undefined || message.conflated >= 1, text);
}

export function assertEstablished(established) {
  const text = JSON.stringify(established);
  for (const field of ['connectionId', 'clientId', 'node']) assert.equal(typeof established[field], 'string', text);
  assert.ok(isNumber(established.serverTime), text);
  assert.ok(isNumber(established.heartbeat.intervalMs), text);
  assert.ok(isNumber(established.heartbeat.timeoutMs), text);
  assert.ok(isObject(established.limits), text);
}

export function assertRefused(answer) {
  const text = JSON.stringify(answer);
  assert.equal(answer.ok, false, text);
  assert.match(answer.error.code, /^[a-z][a-z0-9_]*$/, text);
  assert.ok(answer.error.message.length > 0, text);
}

/** The whole story of a test in its own channel. */
export function assertTestLife(messages, { testId, jobId, passed }) {
  const story = messages.filter((message) => message.event !== 'test:log');
  const names = story.map((message) => message.event);
  const end = passed ? 'test:completed' : 'test:failed';
  assert.equal(names[0], 'test:started', names.join());
  assert.equal(names.at(-1), end, names.join());
  const middle = names.slice(1, -1);
  assert.ok(middle.length >= 1 && middle.every((name) => name === 'test:progress'), names.join());
  for (const { data } of story) {
    assert.equal(data.testId, testId);
    assert.equal(data.attempt, 1);
  }
  const started = story[0].data;
  assert.equal(started.testType, 'command');
  assert.equal(started.jobId, jobId);
  assert.ok(isNumber(started.startedAt));
  let progress = 0;
  for (const { data } of story.slice(1, -1)) {
    assert.ok(isNumber(data.progress) && data.progress >= progress && data.progress <= 100, JSON.stringify(data));
    assert.ok(isObject(data.metrics), JSON.stringify(data));
    progress = data.progress;
  }
  const ended = story.at(-1).data;
  assert.ok(isNumber(ended.durationMs));
  if (passed) {
    assert.equal(ended.status, 'passed');
    assert.ok(isObject(ended.results));
    assert.ok(isNumber(ended.completedAt));
  } else {
    assert.equal(ended.error.code, 'tests_failed');
    assert.ok(ended.error.message.length > 0);
    assert.equal(ended.willRetry, false);
  }
}

/** The story of one job; `queue-updates` mixes several, so `messages` are those of this job. */
export function assertJobLife(messages, { testId, jobId, passed, from = 'added' }) {
  const names = messages.map((message) => message.event.replace('queue:job:', ''));
  const story = names.filter((name) => name !== 'progress');
  const whole = ['added', 'started', passed ? 'completed' : 'failed'];
  assert.deepEqual(story, whole.slice(whole.indexOf(from)), names.join());
  for (const { data } of messages) {
    const text = JSON.stringify(data);
    assert.equal(data.jobId, jobId, text);
    assert.equal(data.testId, testId, text);
    assert.equal(data.testType, 'command', text);
    assert.equal(typeof data.state, 'string', text);
    assert.ok(isNumber(data.attempt), text);
  }
  assert.equal(messages.at(-1).data.state, passed ? 'completed' : 'failed');
  if (!passed) assert.equal(messages.at(-1).data.error.code, 'tests_failed');
}
