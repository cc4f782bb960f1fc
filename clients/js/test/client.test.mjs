// The package as it is published, against the real program.
import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { connect, watchPresence } from 'tidings-client';
import { fold } from 'tidings-client/fold';
import { eventually } from '../../../tests/interop/daemon.mjs';
import { startServer } from '../../../tests/interop/server.mjs';

const server = await startServer();
const clients = [];
let count = 0;
const name = () => `js_${process.pid}_${++count}`;

after(() => server.stop());
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

function open(options) {
  const client = connect(server.url, { socket: { transports: ['websocket'] }, ...options });
  clients.push(client);
  return client;
}
const until = (what, check) => eventually(`no ${what}`, check);
const note = (channel, n) => ({ channel, event: 'custom:note', data: { n } });
const notes = (messages) => messages.map((message) => message.data.n);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** A room with everything that it told. */
function follow(client, channel, options) {
  const told = { messages: [], resets: [], joins: [], refused: [] };
  told.room = client.join(
    channel,
    {
      message: (message) => told.messages.push(message),
      reset: (reset) => told.resets.push(reset),
      joined: (ack) => told.joins.push(ack),
      refused: (error) => told.refused.push(error),
    },
    options,
  );
  return told;
}
/** Ends the transport as a lost network would. */
const cut = (client) => client.socket.io.engine.close();

test('a test is followed from its snapshot to its end, and the fold is the state that the server has', async () => {
  const client = open();
  const testId = name();
  const states = [];
  let state;
  client.join(`test-progress-${testId}`, {
    snapshot: (snapshot) => (state = snapshot),
    message(message) {
      state = fold(state, message);
      states.push(state);
    },
  });
  await until('live client', () => client.status.state === 'live');
  await client.request('POST', '/api/v1/jobs', { testType: 'command', testId, config: { suite: 'failing' }, maxAttempts: 1 });
  await until('end', () => state?.state === 'failed');
  const known = await client.request('GET', `/api/v1/tests/${testId}`);
  // What is known before the first message only is in no message.
  assert.deepEqual(JSON.parse(JSON.stringify({ ...state, queuedAt: known.queuedAt })), known);
  assert.ok(states.some((test) => test.state === 'running' && test.counts.passed > 0));
  assert.equal(known.counts.failed, 1);

  const late = open();
  const first = await new Promise((resolve) => late.join(`test-progress-${testId}`, { snapshot: resolve }));
  assert.deepEqual(first, known);
});

test('a test that is submitted again under its name has another life', async () => {
  const client = open();
  const testId = name();
  let state;
  client.join(`test-progress-${testId}`, (message) => (state = fold(state, message)), { since: 'start' });
  await until('live client', () => client.status.state === 'live');
  const submit = (suite) => client.request('POST', '/api/v1/jobs', { testType: 'command', testId, config: { suite }, maxAttempts: 1 });
  for (const [suite, end] of [['failing', 'failed'], ['passing', 'completed'], ['failing', 'failed']]) {
    const { jobId } = await submit(suite);
    await until('end of its job', () => state?.jobId === jobId && state.state === end);
    const { queuedAt, ...known } = await client.request('GET', `/api/v1/tests/${testId}`);
    assert.deepEqual(JSON.parse(JSON.stringify(state)), known);
  }
});

test('the fold of every message of a retried test is its snapshot', async () => {
  const client = open();
  const testId = name();
  let state;
  const channel = `test-progress-${testId}`;
  client.join(channel, (message) => (state = fold(state, message)), { since: 'start' });
  const tell = (event, data) => client.publish({ channel, event, data: { testId, ...data } });
  const agrees = async () => {
    const known = await client.request('GET', `/api/v1/tests/${testId}`);
    await until('message', () => state?.offset === known.offset);
    assert.deepEqual(JSON.parse(JSON.stringify(state)), known);
  };
  await until('live client', () => client.status.state === 'live');
  for (const [event, data] of [
    ['test:started', { attempt: 1, testType: 'external', startedAt: 5 }],
    ['test:progress', { attempt: 1, progress: 30, completed: 3, total: 10, message: 'three', etaMs: { low: 1, high: 2 } }],
    ['test:progress', { attempt: 1, progress: 40, counts: { passed: 3, failed: 1 }, failures: [{ name: 'a', message: 'b' }] }],
    ['test:failed', { attempt: 1, error: { code: 'x', message: 'y' }, willRetry: true }],
    ['test:progress', { attempt: 2, progress: 10, metrics: { rps: 7 }, current: ['c'] }],
    ['test:log', { attempt: 2, firstLine: 1, lines: ['l'] }],
    ['custom:note', { attempt: 2 }],
    ['test:completed', { attempt: 2, results: { n: 1 }, message: 'done' }],
  ]) {
    await tell(event, data);
    await agrees();
  }
});

test('after a lost connection comes exactly what was missed, and the status says how it stands', async () => {
  const client = open();
  const other = open();
  const channel = `test-progress-${name()}`;
  const states = [];
  client.onStatus(({ state }) => states.push(state));
  const told = follow(client, channel);
  await until('live clients', () => client.status.state === 'live' && other.status.state === 'live');
  await other.publish(note(channel, 1));
  await until('first message', () => told.messages.length === 1);
  client.socket.io.reconnection(false);
  cut(client);
  await until('loss', () => client.status.state === 'offline');
  for (const n of range(2, 30)) await other.publish(note(channel, n));
  client.connect();
  await until('the rest', () => told.messages.length === 30);
  assert.deepEqual(notes(told.messages), range(1, 30));
  assert.equal(client.status.state, 'live');
  assert.deepEqual(states, ['connecting', 'catching-up', 'live', 'offline', 'catching-up', 'live']);
  assert.deepEqual(told.joins.at(-1).recovered, true);
});

test('a killed server is followed again: nothing missing, nothing twice', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await until('live client', () => client.status.state === 'live');
  for (const n of range(1, 20)) await client.publish(note(channel, n));
  await server.restart();
  await until('the way back', () => client.status.state === 'live' && told.joins.length === 2);
  for (const n of range(21, 40)) await client.publish(note(channel, n));
  await until('all messages', () => told.messages.length >= 40);
  assert.deepEqual(notes(told.messages), range(1, 40));
  assert.equal(told.resets.length, 0);
});

test('a gap is noticed and filled before anything is handed over', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await until('live client', () => client.status.state === 'live');
  await client.publish(note(channel, 1));
  await until('first message', () => told.messages.length === 1);
  const other = open();
  await until('other client', () => other.status.state === 'live');
  // The next two are lost on their way, as a fault of a proxy or of the server might do.
  const { decoder } = client.socket.io;
  const add = decoder.add;
  let lost = '';
  decoder.add = (packet) => (lost += packet);
  await other.publish(note(channel, 2));
  await other.publish(note(channel, 3));
  await until('what was lost', () => lost.includes('"offset":3'));
  decoder.add = add;
  await other.publish(note(channel, 4));
  await until('all messages', () => told.messages.length === 4);
  assert.deepEqual(notes(told.messages), range(1, 4));
  assert.equal(told.joins.length, 2);
});

test('where the past is gone, a reset says so, and gives the state', async () => {
  const client = open();
  const testId = name();
  const channel = `test-progress-${testId}`;
  await until('live client', () => client.status.state === 'live');
  await client.publish({ channel, event: 'test:progress', data: { testId, attempt: 1, progress: 50 } });
  let state;
  const seen = [];
  client.join(
    channel,
    { reset: ({ reason }) => seen.push(reason), snapshot: (snapshot) => (state = snapshot), message: ({ data }) => seen.push(data.n) },
    { since: { epoch: 'other', offset: 1 } },
  );
  await until('reset', () => state);
  assert.equal(state.progress, 50);
  await client.publish(note(channel, 2));
  await until('message', () => seen.length === 2);
  assert.deepEqual(seen, ['epoch_changed', 2]);
});

test('messages of a flood come in batches, and each once', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  let batches = 0;
  client.socket.on('message:batch', () => batches++);
  const told = follow(client, channel, { since: 'start' });
  await until('live client', () => client.status.state === 'live');
  await client.request('POST', '/api/v1/events', range(1, 500).map((n) => note(channel, n)));
  await until('all messages', () => told.messages.length === 500);
  assert.deepEqual(notes(told.messages), range(1, 500));
  assert.ok(batches >= 10, `${batches} batches`);
});

test('critical messages are acknowledged, and come once', async () => {
  const client = open({ acks: true });
  const told = follow(client, 'system-alerts', { since: 'now' });
  await until('live client', () => client.status.state === 'live');
  await client.request('POST', '/api/v1/broadcast', { level: 'warning', message: 'maintenance at noon' });
  await client.request('POST', '/api/v1/broadcast', { level: 'info', message: 'over' });
  await until('both alerts', () => told.messages.length === 2);
  assert.deepEqual(told.messages.map(({ data }) => data.message), ['maintenance at noon', 'over']);
  assert.equal(told.messages[0].priority, 4);
});

test('a device goes on after what it acknowledged', async () => {
  const channel = `test-progress-${name()}`;
  const identity = { userId: name(), clientId: 'laptop' };
  const first = open(identity);
  const told = follow(first, channel, { acknowledge: true });
  await until('live client', () => first.status.state === 'live');
  await first.publish(note(channel, 1));
  await first.publish(note(channel, 2));
  await until('both messages', () => told.messages.length === 2);
  await first.acknowledge(channel, told.room.position);
  first.close();
  const between = open();
  await until('other client', () => between.status.state === 'live');
  await between.publish(note(channel, 3));
  const second = open(identity);
  const rest = follow(second, channel);
  await until('the rest', () => rest.messages.length === 1);
  assert.deepEqual(notes(rest.messages), [3]);
});

test('a room that was left tells nothing more, and one that cannot be joined says why', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel);
  const wrong = follow(client, 'no-such-channel');
  await until('refusal', () => wrong.refused.length === 1);
  assert.equal(wrong.refused[0].code, 'unknown_channel');
  await until('live client', () => client.status.state === 'live');
  told.room.leave();
  const placed = await client.publish(note(channel, 1));
  const again = follow(client, channel, { since: 'start' });
  await until('message', () => again.messages.length === 1);
  assert.equal(again.messages[0].offset, placed.offset);
  assert.equal(told.messages.length, 0);
});

test('who is online is known at once and kept', async () => {
  const ann = name();
  const bob = name();
  const first = open({ userId: ann });
  await until('first user', () => first.status.state === 'live');
  const client = open();
  let online = new Map();
  const stop = watchPresence(client, (users) => (online = new Map(users)));
  await until('first user in the list', () => online.get(ann) === 1);
  const second = open({ userId: bob });
  await until('second user', () => online.has(bob));
  second.close();
  await until('a list without the second user', () => !online.has(bob));
  stop();
});

test('refusals of HTTP and of publishing are errors with the code of the server', async () => {
  const client = open();
  await until('live client', () => client.status.state === 'live');
  await assert.rejects(client.request('GET', '/api/v1/tests/none'), { name: 'TidingsError', code: 'test_not_found', status: 404 });
  await assert.rejects(client.publish({ channel: 'queue-updates', event: 'custom:x', data: {} }), { code: 'unknown_event' });
  client.close();
  await assert.rejects(client.publish(note('queue-updates', 1)), { code: 'offline' });
  assert.equal(client.status.state, 'closed');
});
