// The counters of /metrics are right: after a known load they are what the clients counted, to the last message.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from './client.mjs';
import { eventually } from './daemon.mjs';
import { startServer } from './server.mjs';

const server = await startServer();
const clients = [];
after(() => {
  for (const client of clients) client.close();
  return server.stop();
});

/** All series, by name and labels. */
async function metrics() {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}
const connect = async (auth, transports = ['websocket']) => {
  const client = new Client(server, { transports, auth });
  clients.push(client);
  await client.connected();
  return client;
};
const publish = (messages) => server.post('/api/v1/events', messages);
const refused = (path, body) => fetch(server.url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body });

const [TEAM, TEST] = ['team-updates-1', 'test-progress-a'];
const PRIORITIES = ['low', 'normal', 'high', 'critical'];
const update = (n) => ({ event: 'team:update', channel: TEAM, id: `u${n}`, priority: 1 + (n % 4), data: { n } });
const progress = (n) => ({ event: 'test:progress', channel: TEST, data: { testId: 'a', attempt: 1, progress: n % 100, message: 'x'.repeat(20_000) } });
const last = { event: 'test:completed', channel: TEST, data: { testId: 'a', attempt: 1, status: 'passed', durationMs: 1 } };

test('publications, deliveries, conflated and rejected are what clients counted', { timeout: 120_000 }, async () => {
  const before = await metrics();

  // Three who keep up, one of them by polling and one in batches; one who does not read for a while.
  const prompt = [await connect(), await connect({ batch: true }), await connect({}, ['polling'])];
  const slow = await connect();
  for (const client of [...prompt, slow]) for (const room of [TEAM, TEST, 'test-updates']) await client.join(room);
  const socket = slow.socket.io.engine.transport.ws._socket;
  socket.pause();
  const updates = Array.from({ length: 200 }, (_, n) => update(n));
  await publish(updates);
  // Again with the same ids: known already, so neither appended nor delivered.
  await publish(updates.slice(0, 50));
  for (let sent = 0; sent < 600; sent += 50) await publish(Array.from({ length: 50 }, (_, n) => progress(sent + n)));
  await publish(last);
  socket.resume();

  // Two who come back: one gets what it missed, conflated, the other has to start over.
  const back = await connect();
  const acks = [await back.join(TEST, { since: 'start' }), await back.join(TEAM, { since: { epoch: 'gone', offset: 3 } })];
  assert.deepEqual(acks.map(({ recovered }) => recovered), [true, false]);
  for (const client of [...prompt, slow, back]) await client.message(TEST, ({ event }) => event === 'test:completed');
  for (const client of [...prompt, slow]) {
    await client.message('test-updates', ({ event }) => event === 'test:completed');
    await client.message(TEAM, ({ data }) => data.n === 199);
  }
  for (const client of clients) client.assertContinuous();

  const other = { channel: 'test-progress-b', event: 'test:started', data: { testId: 'b', testType: 'x', attempt: 2, startedAt: 1 } };
  const { offset: elsewhere } = await publish(other);
  const refusals = {
    unknown_channel: [['/api/v1/events', JSON.stringify({ ...update(1), channel: 'nowhere' })]],
    unknown_event: [['/api/v1/events', JSON.stringify({ ...update(1), event: 'test:log' })]],
    invalid: [['/api/v1/events', '{"event":"team:update","channel":"team-updates-1","priority":9,"data":{}}']],
    too_large: [['/api/v1/events', JSON.stringify({ ...update(1), id: 'large', data: 'x'.repeat(70_000) })]],
    stale_attempt: [['/api/v1/events', JSON.stringify({ ...other, event: 'test:progress', data: { testId: 'b', attempt: 1, progress: 1 } })]],
  };
  const met = {};
  for (const [reason, requests] of Object.entries(refusals)) {
    for (const [path, body] of requests) {
      const { status } = await refused(path, body);
      if (status >= 400 && status < 500) met[reason] = (met[reason] ?? 0) + 1;
    }
  }
  assert.equal((await back.emit('room:join', 'nowhere')).ok, false);
  met.unknown_channel += 1;

  for (const client of [...prompt, slow]) await client.message('test-updates', ({ data }) => data.testId === 'b');
  const received = clients.flatMap((client) => [TEAM, TEST, 'test-updates'].flatMap((room) => client.messages(room)));
  const priority = (n) => received.filter((message) => message.priority === n + 1).length;
  // Handing over is counted right after it is done.
  const now = await eventually('the last delivery is counted', async () => {
    const all = await metrics();
    const counted = PRIORITIES.map((name) => all.get(`tidings_deliveries_total{priority="${name}"}`));
    return counted.reduce((a, b) => a + b) >= received.length && all;
  });
  const rise = (series) => now.get(series) - (before.get(series) ?? 0);

  const tops = new Map();
  for (const room of [TEAM, TEST, 'test-updates', 'test-history-updates']) {
    const page = await (await fetch(`${server.url}/api/v1/channels/${room}/messages?limit=1`)).json();
    tops.set(room.replace(/-[1a]$/, ''), page.top);
  }
  tops.set('test-progress', tops.get('test-progress') + elsewhere);
  for (const [namespace, top] of tops) {
    const series = PRIORITIES.map((name) => `tidings_publications_total{namespace="${namespace}",priority="${name}"}`);
    assert.equal(series.reduce((sum, name) => sum + rise(name), 0), top, `publications of ${namespace}`);
  }
  assert.equal(tops.get('team-updates'), 200);
  PRIORITIES.forEach((name, n) => assert.equal(rise(`tidings_deliveries_total{priority="${name}"}`), priority(n), `deliveries, ${name}`));
  const conflated = received.reduce((sum, message) => sum + (message.conflated ?? 0), 0);
  assert.ok(conflated > 0 && slow.messages(TEST).length < prompt[0].messages(TEST).length, 'the slow one was spared something');
  assert.equal(rise('tidings_conflated_total'), conflated);
  assert.equal(rise('tidings_recoveries_total{outcome="recovered"}'), 1);
  assert.equal(rise('tidings_recoveries_total{outcome="reset"}'), 1);
  assert.equal(rise('tidings_replayed_total'), acks[0].replayed);
  assert.equal(rise('tidings_batch_messages_sum'), received.length);
  for (const reason of ['unknown_channel', 'forbidden', 'unknown_event', 'invalid', 'too_large', 'stale_attempt', 'limit', 'unavailable']) {
    assert.equal(rise(`tidings_rejected_total{reason="${reason}"}`), met[reason] ?? 0, reason);
  }
  assert.equal(Object.keys(met).length, 5, JSON.stringify(met));

  // The statistics are the same numbers.
  const stats = await (await fetch(`${server.url}/api/v1/stats`)).json();
  assert.equal(stats.deliveries, received.length);
  PRIORITIES.forEach((name, n) => assert.equal(stats.byPriority[name].deliveries, priority(n)));
  assert.deepEqual([stats.conflated, stats.recoveries], [conflated, { recovered: 1, reset: 1, replayed: acks[0].replayed }]);
  assert.equal(stats.workers, 1);
  assert.ok(stats.deliveryLatencyMs.p50 <= stats.deliveryLatencyMs.p99 && stats.batch.mean >= 1);
});
