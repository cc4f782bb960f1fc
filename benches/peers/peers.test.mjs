// The servers that tidings is compared with do what the comparison takes for granted, seen by the official client.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { io } from 'socket.io-client';
import { startRedis } from './measure.mjs';
import { startServer } from './servers.mjs';

const DEADLINE_MS = 20_000;
const EVENT = 'custom:peers';

/** A connected client that collects the messages it gets. */
async function connect(server) {
  const socket = io(server.url, { transports: ['websocket'], forceNew: true, reconnection: false });
  const client = { socket, messages: [], waiting: new Set() };
  socket.on(EVENT, (message) => {
    client.messages.push(message);
    for (const check of client.waiting) check();
  });
  await new Promise((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('connect_error', reject);
  });
  return client;
}

async function join(client, room) {
  const ack = await client.socket.timeout(DEADLINE_MS).emitWithAck('room:join', room);
  assert.equal(ack.ok, true, JSON.stringify(ack));
  assert.equal(ack.room, room.room ?? room);
}

/** Waits until `client` has `n` messages. */
function received(client, n) {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (client.messages.length < n) return;
      clearTimeout(timer);
      client.waiting.delete(check);
      resolve(client.messages);
    };
    const timer = setTimeout(
      () => reject(new Error(`${client.messages.length} of ${n} messages came within ${DEADLINE_MS} ms`)),
      DEADLINE_MS,
    );
    client.waiting.add(check);
    check();
  });
}

async function post(server, body) {
  const response = await fetch(`${server.url}/api/v1/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  return { status: response.status, body: await response.json() };
}

const message = (channel, n, more = {}) => ({ event: EVENT, channel, data: { n, ...more } });
const numbers = (client) => client.messages.map(({ data }) => data.n);

const hasRedis = spawnSync('redis-server', ['--version']).status === 0;

for (const kind of ['node', 'redis', 'floor']) {
  const skip = kind === 'redis' && !hasRedis && 'there is no redis-server on PATH';
  test(`the ${kind} server`, { timeout: 60_000, skip }, async (t) => {
    const redis = kind === 'redis' ? await startRedis() : undefined;
    t.after(() => redis?.stop());
    const server = await startServer(kind, { redisUrl: redis?.url });
    t.after(() => server.stop());
    const clients = [];
    const client = async () => clients[clients.push(await connect(server)) - 1];
    t.afterEach(() => clients.splice(0).forEach(({ socket }) => socket.disconnect()));

    await t.test('says that it is well', async () => {
      const response = await fetch(`${server.url}/healthz`);
      assert.equal(response.status, 200);
      assert.deepEqual(await response.json(), { status: 'ok' });
    });

    await t.test('brings a message to the members of its room, once, as they know it from tidings', async () => {
      const [one, two, other] = [await client(), await client(), await client()];
      await join(one, 'a-room');
      await join(two, { room: 'a-room' });
      await join(two, 'a-room');
      await join(other, 'another');
      const answer = await post(server, { ...message('a-room', 1), priority: 3 });
      assert.equal(answer.status, 201);
      await post(server, message('another', 2));
      await received(other, 1);
      await post(server, message('a-room', 3));
      for (const member of [one, two]) {
        const [first] = await received(member, 2);
        assert.deepEqual(numbers(member), [1, 3]);
        assert.equal(first.id, answer.body.id);
        assert.match(first.id, /^msg_[0-9A-Za-z]{26}$/);
        assert.equal(first.event, EVENT);
        assert.equal(first.channel, 'a-room');
        assert.equal(first.priority, 3);
        assert.ok(Math.abs(Date.now() - first.timestamp) < DEADLINE_MS);
      }
      assert.deepEqual(numbers(other), [2]);
      // Only tidings has positions; the floor writes as many bytes.
      if (kind === 'floor') assert.deepEqual(one.messages.map(({ offset }) => offset), [1, 2]);
      assert.equal(one.messages[1].priority, 2);
    });

    await t.test('takes arrays, and answers and delivers in their order', async () => {
      const one = await client();
      await join(one, 'arrays');
      const sent = Array.from({ length: 100 }, (_, n) => message('arrays', n));
      const { status, body } = await post(server, sent);
      assert.equal(status, 200);
      await received(one, sent.length);
      assert.deepEqual(numbers(one), sent.map(({ data }) => data.n));
      assert.deepEqual(one.messages.map(({ id }) => id), body.results.map(({ id }) => id));
      assert.equal(new Set(body.results.map(({ id }) => id)).size, sent.length);
    });

    await t.test('frames of every length, in both directions', async () => {
      const one = await client();
      for (const length of [1, 90, 125, 126, 300, 65_535, 65_536, 200_000]) {
        await join(one, 'r'.repeat(length));
      }
      await join(one, 'lengths');
      for (const length of [1, 20, 62, 63, 200, 32_767, 32_768, 200_000]) {
        const text = 'é'.repeat(length);
        one.messages.length = 0;
        await post(server, message('lengths', length, { text }));
        const [first] = await received(one, 1);
        assert.equal(first.data.text, text);
      }
    });

    await t.test('refuses what is no message, and goes on', async () => {
      const one = await client();
      await join(one, 'refusals');
      assert.equal((await post(server, '{')).status, 400);
      assert.equal((await post(server, { event: EVENT })).status, 400);
      assert.equal((await post(server, message('refusals', 1))).status, 201);
      await received(one, 1);
    });

    await t.test('lets members go and come', async () => {
      const [stays, goes] = [await client(), await client()];
      await join(stays, 'comings');
      await join(goes, 'comings');
      goes.socket.disconnect();
      await post(server, message('comings', 1));
      const comes = await client();
      await join(comes, 'comings');
      await post(server, message('comings', 2));
      await received(comes, 1);
      await received(stays, 2);
      assert.deepEqual(numbers(stays), [1, 2]);
      assert.deepEqual(numbers(comes), [2]);
      assert.deepEqual(numbers(goes), []);
    });

    await t.test('keeps everything, in order, for a member that does not read for a while', async () => {
      const [slow, other] = [await client(), await client()];
      await join(slow, 'slow');
      await join(other, 'slow');
      const socket = slow.socket.io.engine.transport.ws._socket;
      socket.pause();
      const text = 'x'.repeat(4_000);
      // More than the kernel holds for a connection.
      const sent = Array.from({ length: 4_000 }, (_, n) => message('slow', n, { text }));
      for (let at = 0; at < sent.length; at += 500) await post(server, sent.slice(at, at + 500));
      await received(other, sent.length);
      assert.ok(slow.messages.length < sent.length, 'it did not read');
      socket.resume();
      await received(slow, sent.length);
      assert.deepEqual(numbers(slow), sent.map(({ data }) => data.n));
    });

    if (kind !== 'redis') return;
    await t.test('brings back what a member missed that was away', async () => {
      const one = await client();
      await join(one, 'recovery');
      await post(server, message('recovery', 1));
      await received(one, 1);
      one.socket.io.engine.close();
      await post(server, message('recovery', 2));
      const connected = new Promise((resolve) => one.socket.once('connect', resolve));
      one.socket.connect();
      await connected;
      assert.equal(one.socket.recovered, true);
      await received(one, 2);
      assert.deepEqual(numbers(one), [1, 2]);
    });
  });
}
