// The official Socket.IO client against the real program, over each transport.
import assert from 'node:assert/strict';
import { after, afterEach, describe, test } from 'node:test';
import { Client } from './client.mjs';
import { assertEstablished, assertJobLife, assertRefused, assertTestLife } from './contract.mjs';
import { startServer } from './server.mjs';

const TRANSPORTS = {
  'polling, then upgraded': undefined,
  'websocket only': ['websocket'],
  'polling only': ['polling'],
};

// Not in a hook: a server that does not start is then one failure, not one for every case.
const server = await startServer();
const clients = [];
let count = 0;

after(() => server.stop());
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

const connect = async (transports, auth, reconnection) => {
  const client = new Client(server, { transports, auth, reconnection });
  clients.push(client);
  client.established = await client.connected();
  return client;
};
/** A test id of its own for every case. */
const newTestId = () => `interop_${process.pid}_${++count}`;
const note = (channel, n, rest) => ({ event: 'custom:note', channel, data: { n }, ...rest });
const publish = (message) => server.post('/api/v1/events', message);
const submit = (suite, testId, rest) =>
  server.post('/api/v1/jobs', { testType: 'command', config: { suite }, testId, maxAttempts: 1, ...rest });
const ofJob = (client, channel, jobId) => client.messages(channel).filter((m) => m.data.jobId === jobId);

for (const [name, transports] of Object.entries(TRANSPORTS)) {
  describe(name, { timeout: 120_000 }, () => {
    test('a client is told whom it is connected to, and keeps its transport or upgrades', async () => {
      const client = await connect(transports, { userId: 'user_7', clientId: 'client_7' });
      assertEstablished(client.established);
      assert.equal(client.established.userId, 'user_7');
      assert.equal(client.established.clientId, 'client_7');
      const { engine } = client.socket.io;
      if (transports === undefined && engine.transport.name !== 'websocket') {
        await new Promise((resolve, reject) => {
          engine.once('upgrade', resolve);
          engine.once('upgradeError', reject);
        });
      }
      assert.equal(engine.transport.name, transports?.[0] ?? 'websocket');
    });

    test('a job that passes is told from its submission to its end, in order', async () => {
      const testId = newTestId();
      const client = await connect(transports);
      await client.join(`test-progress-${testId}`);
      await client.join('queue-updates');
      const { status, jobId, existing } = await submit('passing', testId);
      assert.deepEqual({ status, existing }, { status: 201, existing: false });
      await client.join(`job-status-${jobId}`, { since: 'start' });

      await client.message(`test-progress-${testId}`, (m) => m.event === 'test:completed');
      await client.message(`job-status-${jobId}`, (m) => m.event === 'queue:job:completed');
      await client.message('queue-updates', (m) => m.event === 'queue:job:completed' && m.data.jobId === jobId);
      client.assertContinuous();
      const life = { testId, jobId, passed: true };
      assertTestLife(client.messages(`test-progress-${testId}`), life);
      assertJobLife(ofJob(client, 'queue-updates', jobId), life);
      assertJobLife(client.messages(`job-status-${jobId}`), life);
    });

    test('a job whose tests fail ends with tests_failed and is not retried', async () => {
      const testId = newTestId();
      const client = await connect(transports);
      await client.join(`test-progress-${testId}`);
      await client.join('queue-updates');
      // The delay leaves time to join the job's own channel before anything but `added` is in it.
      const { jobId } = await submit('failing', testId, { delayMs: 300 });
      await client.join(`job-status-${jobId}`);

      await client.message(`test-progress-${testId}`, (m) => m.event === 'test:failed');
      await client.message(`job-status-${jobId}`, (m) => m.event === 'queue:job:failed');
      await client.message('queue-updates', (m) => m.event === 'queue:job:failed' && m.data.jobId === jobId);
      client.assertContinuous();
      const life = { testId, jobId, passed: false };
      assertTestLife(client.messages(`test-progress-${testId}`), life);
      assertJobLife(ofJob(client, 'queue-updates', jobId), life);
      assertJobLife(client.messages(`job-status-${jobId}`), { ...life, from: 'started' });
    });

    test('a room that was left sends nothing more', async () => {
      const [left, kept] = [`test-progress-${newTestId()}`, `test-progress-${newTestId()}`];
      const client = await connect(transports);
      await client.join(left);
      await client.join(kept);
      await publish(note(left, 1));
      await client.message(left, (m) => m.data.n === 1);
      assert.equal((await client.emit('room:leave', left)).ok, true);
      // Urgent, so that it would overtake the fence if it were still sent.
      await publish(note(left, 2, { priority: 3 }));
      await publish(note(kept, 3));
      await client.message(kept, (m) => m.data.n === 3);
      assert.deepEqual(client.messages(left).map((m) => m.data.n), [1]);
    });

    test('a client that returns gets exactly what it missed', async () => {
      const room = `test-progress-${newTestId()}`;
      const first = await connect(transports);
      await first.join(room);
      await publish(note(room, 1));
      const { epoch, offset } = await first.message(room, (m) => m.data.n === 1);
      first.close();
      await publish([note(room, 2), note(room, 3)]);

      const client = await connect(transports);
      const ack = await client.join(room, { since: { epoch, offset } });
      assert.deepEqual({ recovered: ack.recovered, replayed: ack.replayed }, { recovered: true, replayed: 2 });
      await publish(note(room, 4));
      await client.message(room, (m) => m.data.n === 4);
      assert.deepEqual(client.messages(room).map((m) => m.data.n), [2, 3, 4]);
      client.assertContinuous();
    });

    test('a client with an old epoch is told to start over', async () => {
      const room = `test-progress-${newTestId()}`;
      const client = await connect(transports);
      await publish(note(room, 1));
      const ack = await client.join(room, { since: { epoch: 'long_gone', offset: 5 } });
      assert.equal(ack.recovered, false);
      const reset = await client.event('room:reset', (data) => data.room === room);
      assert.deepEqual({ epoch: reset.epoch, offset: reset.offset }, { epoch: ack.epoch, offset: 1 });
      assert.equal(typeof reset.reason, 'string');
      await publish(note(room, 2));
      await client.message(room, (m) => m.data.n === 2);
      client.assertContinuous();
    });

    test('a ping is answered with its own content and the server time', async () => {
      const client = await connect(transports);
      client.socket.emit('heartbeat:ping', { t: 4711 });
      const pong = await client.event('heartbeat:pong', (data) => data.t === 4711);
      assert.equal(typeof pong.serverTime, 'number');
    });

    test('what makes no sense is refused with a code, and the connection stays', async () => {
      const client = await connect(transports);
      assertRefused(await client.emit('room:join', 'no-such-channel'));
      const room = `test-progress-${newTestId()}`;
      for (const malformed of [
        null,
        5,
        {},
        { room: 5 },
        'test-progress-a b',
        { room, since: 'tomorrow' },
        { room, since: { epoch: 'e' } },
        { room, since: { epoch: 'e', offset: -1 } },
      ]) {
        assertRefused(await client.emit('room:join', malformed));
      }
      // Without a callback the refusal comes as an event.
      client.socket.emit('room:join', 'no-such-channel');
      const error = await client.event('error', (data) => data.event === 'room:join');
      assert.deepEqual(Object.keys(error).sort(), ['code', 'event', 'message']);
      await client.join(room);
    });

    test('requests and refusals are answered in the order in which they were made', async () => {
      const client = await connect(transports);
      const answered = [];
      const ask = (room) => client.emit('room:join', room).then(({ ok }) => answered.push([room, ok]));
      const rooms = Array.from({ length: 10 }, (_, n) => (n % 2 ? `no room ${n}` : `test-progress-${newTestId()}`));
      await Promise.all(rooms.map(ask));
      assert.deepEqual(answered, rooms.map((room, n) => [room, n % 2 === 0]));
    });

    test('a client that asked for batches gets them in order and never longer than ten', async () => {
      const room = `test-progress-${newTestId()}`;
      const client = await connect(transports, { batch: true });
      await client.join(room);
      const numbers = Array.from({ length: 45 }, (_, n) => n);
      const { status, results } = await publish(numbers.map((n) => note(room, n)));
      assert.equal(status, 200);
      assert.deepEqual(results.map((result) => result.offset), numbers.map((n) => n + 1));
      await client.message(room, (m) => m.data.n === 44);
      const batches = client.log.filter((entry) => entry.event === 'message:batch').map((entry) => entry.data);
      assert.ok(batches.some((batch) => batch.length > 1), 'nothing came in a batch');
      assert.ok(batches.every((batch) => Array.isArray(batch) && batch.length <= 10), 'a batch of more than ten');
      assert.deepEqual(client.messages(room).map((m) => m.data.n), numbers);
      client.assertContinuous();
    });

    test('what one client publishes reaches another, once for each id', async () => {
      const room = `test-progress-${newTestId()}`;
      const [sender, receiver] = [await connect(transports), await connect(transports)];
      await receiver.join(room);
      const first = await sender.emit('event:publish', note(room, 1, { id: 'note-1', tag: 'kept' }));
      assert.deepEqual({ ok: first.ok, id: first.id, offset: first.offset }, { ok: true, id: 'note-1', offset: 1 });
      const message = await receiver.message(room, (m) => m.id === 'note-1');
      assert.deepEqual([message.epoch, message.offset, message.tag], [first.epoch, first.offset, 'kept']);

      const again = await sender.emit('event:publish', note(room, 1, { id: 'note-1' }));
      assert.deepEqual([again.epoch, again.offset], [first.epoch, first.offset]);
      assert.equal((await sender.emit('event:publish', note(room, 2))).ok, true);
      await receiver.message(room, (m) => m.data.n === 2);
      assert.deepEqual(receiver.messages(room).map((m) => m.data.n), [1, 2]);
      receiver.assertContinuous();
      assertRefused(await sender.emit('event:publish', { event: 'custom:note', data: {} }));
    });

    test('a client that the server ends comes back by itself and gets what waits for its user', async () => {
      const userId = `user_${process.pid}_${++count}`;
      const client = await connect(transports, { userId }, true);
      const { engine } = client.socket.io;
      if (transports === undefined && engine.transport.name !== 'websocket') {
        await new Promise((resolve) => engine.once('upgrade', resolve));
      }
      const notify = (title) => server.post(`/api/v1/users/${userId}/messages`, { title });
      const titles = () => client.log.filter((e) => e.event === 'user:notification').map((e) => e.data.data.title);
      await notify('first');
      await client.until('the first notification', () => titles().length === 1);
      const { connectionId } = client.established;
      const ended = await server.post('/api/v1/connections/cleanup', { connectionIds: [connectionId] });
      assert.equal(ended.closed, 1);
      const again = (e) => e.event === 'connection:established' && e.data.connectionId !== connectionId;
      await client.until('a new connection', () => client.log.some(again));
      await client.until('what waits', () => titles().length === 2);
      await notify('second');
      await client.until('what comes', () => titles().length === 3);
      assert.deepEqual(titles(), ['first', 'first', 'second']);
    });
  });
}
