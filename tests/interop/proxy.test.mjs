// Three servers that share a Redis behind a real proxy, under load: one is drained, stopped and comes back, another
// one dies. Stock clients of every kind go on and miss nothing.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from './client.mjs';
import { eventually } from './daemon.mjs';
import { Follower, from, nameOf, Reader } from './follower.mjs';
import { PROXIES } from './proxies.mjs';
import { startRedis } from './redis.mjs';
import { startServer } from './server.mjs';

const KINDS = [
  { transports: ['polling'] },
  { transports: ['websocket'] },
  { transports: undefined },
  { transports: ['polling'], cookies: true },
  { transports: undefined, cookies: true },
];
const CLIENTS = 120;
const READERS = 6;
const EVERY_MS = 20;

const address = (i) => `127.0.${10 + Math.floor(i / 200)}.${1 + (i % 200)}`;

/** Publishes one message after the other until it is told to stop; each until it is acknowledged, by its id. */
class Publisher {
  /** The offsets of what was acknowledged, in order. */
  offsets = [];
  failures = [];
  #stopped = false;

  constructor(url, room) {
    this.done = this.#run(url, room);
  }

  async #run(url, room) {
    for (let n = 0; !this.#stopped; n++) {
      const body = JSON.stringify({ id: `note-${n}`, event: 'custom:note', channel: room, data: { n } });
      const headers = { 'content-type': 'application/json' };
      const post = () => fetch(`${url}/api/v1/events`, { method: 'POST', headers, body, signal: AbortSignal.timeout(5_000) });
      const { offset } = await eventually(() => `note ${n}: ${this.failures.at(-1)}`, async () => {
        try {
          const answer = await post();
          const text = await answer.text();
          if (answer.ok) return JSON.parse(text);
          this.failures.push(`${answer.status} ${text}`);
        } catch (error) {
          this.failures.push(error.cause?.code ?? error.message);
        }
        return undefined;
      });
      this.offsets.push(offset);
      await pause(EVERY_MS);
    }
  }

  stop() {
    this.#stopped = true;
    return this.done;
  }
}

/** Some of these clients, and what they saw last. */
function describeAll(followers) {
  const last = (follower) => JSON.stringify(follower.log.slice(-2)).slice(0, 500);
  const line = (f) => `${f.transports ?? 'upgraded'} at ${f.node()}, ${f.offset()}: ${last(f)}`;
  return `${followers.length} clients\n${followers.slice(0, 5).map(line).join('\n')}`;
}

/** Everything that a story needs; `end()` takes it down again, however far it came. */
async function stage(start, room) {
  const ends = [];
  const keep = async (starting, end = (running) => running.stop()) => {
    const running = await starting;
    ends.unshift(() => end(running));
    return running;
  };
  const end = async () => {
    // One that fails must not keep the others from being ended.
    const outcomes = [];
    for (const step of ends) outcomes.push(await Promise.resolve(step()).then(() => undefined, (error) => error));
    assert.deepEqual(outcomes.filter(Boolean), []);
  };
  try {
    const redis = await keep(startRedis());
    const serve = (port) => keep(startServer({ port, flags: ['--redis', redis.url] }));
    const servers = await Promise.all([serve(), serve(), serve()]);
    const proxy = await keep(start(servers.map((server) => server.url)));
    const follow = (i) => {
      const { transports, cookies } = KINDS[i % KINDS.length];
      const options = { ...from(address(i)), withCredentials: Boolean(cookies) };
      const follower = new Follower(proxy, room, { transports, options });
      ends.unshift(() => follower.close());
      return Object.assign(follower, { address: i, transports, cookies });
    };
    const read = (i) => {
      const url = `${proxy.url}/api/v1/channels/${room}/stream`;
      const reader = new Reader(url, { address: address(i) });
      ends.unshift(() => reader.close());
      return reader;
    };
    const publish = () => {
      const publisher = new Publisher(proxy.url, room);
      ends.unshift(() => publisher.stop());
      return publisher;
    };
    return { servers, proxy, serve, follow, read, publish, end };
  } catch (error) {
    await end();
    throw error;
  }
}

for (const [name, start] of Object.entries(PROXIES)) {
  describe(name, { timeout: 120_000 }, () => {
    test('clients miss nothing when a server is drained, stopped and comes back, and when another one dies', async (t) => {
      const room = `test-progress-behind_${name}`;
      const { servers, proxy, serve, follow, read, publish, end } = await stage(start, room);
      t.after(end);
      const [first, second] = await Promise.all(servers.map(nameOf));
      const followers = Array.from({ length: CLIENTS }, (_, i) => follow(i));
      const readers = Array.from({ length: READERS }, (_, i) => read(i));
      await Promise.all(followers.map((follower) => follower.joined()));
      await eventually('a stream does not open', () => readers.every((reader) => reader.opened === 1));
      const at = (node) => followers.filter((follower) => follower.node() === node);
      assert.ok(servers.length === 3 && new Set(followers.map((f) => f.node())).size === 3, 'a server got no clients');
      const upgraded = ({ socket, transports }) => socket.io.engine.transport.name === (transports?.[0] ?? 'websocket');
      await eventually('not every client was upgraded', () => followers.every(upgraded));

      const publisher = publish();
      /** Everybody has everything that is acknowledged by now, and some more. */
      const caughtUp = async () => {
        const top = publisher.offsets.length + 10;
        const offset = (reader) => reader.messages().at(-1)?.offset ?? 0;
        const behind = () => followers.filter((follower) => follower.offset() < top);
        const late = () => readers.filter((reader) => offset(reader) < top);
        const state = () => `${top} of ${publisher.offsets.length}: ${late().length} streams, ${describeAll(behind())}`;
        await eventually(state, () => behind().length + late().length === 0);
      };
      await caughtUp();

      const drained = at(first);
      const kept = (follower) => follower.cookies && name === 'HAProxy';
      const moves = drained.filter((follower) => follower.transports?.[0] === 'polling' && !kept(follower));
      assert.ok(moves.length > 0, 'nobody polls the server that is drained');
      await proxy.drain(0);
      const told = (some) => () => describeAll(some.filter((f) => [first, second].includes(f.node())));
      await eventually(told(moves), () => moves.every((f) => f.node() !== first));
      const late = drained.filter((follower) => !kept(follower)).slice(0, 10).map((follower) => follow(follower.address));
      await Promise.all(late.map((follower) => follower.joined()));
      assert.ok(late.every((follower) => follower.node() !== first), 'a new client came to the drained server');
      const stayed = drained.filter((follower) => !moves.includes(follower));
      assert.ok(stayed.every((follower) => follower.visits().length === 1), 'a drain alone ended a connection');
      await caughtUp();

      assert.equal(await servers[0].stop(), 0);
      await eventually(told(drained), () => at(first).length === 0);
      await caughtUp();
      const spared = followers.filter((follower) => !drained.includes(follower));
      assert.ok(spared.every((follower) => follower.visits().length === 1), 'a client of another server was disturbed');

      const returned = await serve(new URL(servers[0].url).port);
      const again = await nameOf(returned);
      await proxy.restore(0);
      await eventually('no new client comes to the server that is back', async () => {
        const fresh = new Client(proxy, { transports: ['websocket'], options: from(address(drained[0].address)) });
        const { node } = await fresh.connected();
        fresh.close();
        return node === again;
      });

      await servers[1].kill();
      await eventually(told(followers), () => at(second).length === 0);
      await caughtUp();
      await publisher.stop();

      const count = publisher.offsets.length;
      const offsets = Array.from({ length: count }, (_, n) => n + 1);
      assert.deepEqual(publisher.offsets, offsets, 'an acknowledged message has no or another place');
      await eventually('the end of the story', () => followers.every((follower) => follower.offset() === count));
      await eventually('the end of the streams', () => readers.every((reader) => reader.messages().length >= count));
      for (const follower of followers) {
        follower.assertContinuous();
        assert.deepEqual(follower.messages(room).map((message) => message.data.n + 1), offsets);
      }
      for (const reader of readers) assert.deepEqual(reader.messages().map((message) => message.offset), offsets);
      t.diagnostic(`${CLIENTS} clients, ${count} messages, ${publisher.failures.length} retries`);
      t.diagnostic(`${followers.filter((f) => f.visits().length > 1).length} clients came back`);
    });
  });
}
