// Three servers that share a Redis behind a real proxy: one is drained, stopped and comes back, another one dies, and
// Redis itself stops answering. Stock clients of every kind go on and miss nothing.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Client } from './client.mjs';
import { eventually } from './daemon.mjs';
import { from, nameOf, settled } from './follower.mjs';
import { PROXIES } from './proxies.mjs';
import { address, publishNote, stage } from './stage.mjs';

const CLIENTS = 120;
const READERS = 6;
const GOODBYE = 'system:maintenance:start';

/** Some of these clients, and what they saw last. */
function describeAll(followers) {
  const last = (follower) => JSON.stringify(follower.log.slice(-2)).slice(0, 500);
  const line = (f) => `${f.transport} at ${f.node()}, ${f.offset()}: ${last(f)}`;
  return `${followers.length} clients\n${followers.slice(0, 5).map(line).join('\n')}`;
}

const undisturbed = (follower) => follower.visits().length === 1;

/** Clients, readers and a publisher on a stage, and what happens to their servers. */
class Story {
  constructor(stage, name, room) {
    Object.assign(this, stage, { room });
    // Who sends HAProxy's cookie back stays with a drained server until it stops.
    this.bound = (follower) => follower.cookies && name === 'HAProxy';
  }

  async begin() {
    this.followers = Array.from({ length: CLIENTS }, (_, i) => this.follow(i));
    this.readers = Array.from({ length: READERS }, (_, i) => this.read(i));
    await Promise.all(this.followers.map((follower) => follower.joined()));
    await eventually('a stream does not open', () => this.readers.every((reader) => reader.opened === 1));
    assert.equal(new Set(this.followers.map((follower) => follower.node())).size, 3, 'a server got no clients');
    this.publisher = this.publish();
    await this.caughtUp();
  }

  at(node) {
    return this.followers.filter((follower) => follower.node() === node);
  }

  left(node) {
    return eventually(() => `at ${node}: ${describeAll(this.at(node))}`, () => this.at(node).length === 0);
  }

  /** Everybody has everything that is acknowledged by now and some more, and is where it wants to be. */
  async caughtUp() {
    const top = this.publisher.offsets.length + 10;
    const behind = () => this.followers.filter((follower) => follower.offset() < top);
    const late = () => this.readers.filter((reader) => (reader.messages().at(-1)?.offset ?? 0) < top);
    const state = () => `${top} of ${this.publisher.offsets.length}: ${late().length} streams, ${describeAll(behind())}`;
    await eventually(state, () => behind().length + late().length === 0);
    await settled(this.followers);
  }

  /** Drains the first server: new clients and unbound polls go elsewhere, everybody else stays. */
  async drain() {
    const node = await nameOf(this.servers[0]);
    this.drained = this.at(node);
    const unbound = this.drained.filter((follower) => !this.bound(follower));
    const polling = unbound.filter((follower) => follower.transport === 'polling');
    assert.ok(polling.length > 0, 'nobody polls the server that is drained');
    await this.proxy.drain(0);
    await eventually(() => describeAll(polling), () => polling.every((follower) => follower.node() !== node));
    const fresh = unbound.slice(0, 10).map((follower) => this.follow(follower.number));
    await Promise.all(fresh.map((follower) => follower.joined()));
    assert.ok(fresh.every((follower) => follower.node() !== node), 'a new client came to the drained server');
    await settled(fresh);
    fresh.forEach((follower) => follower.close());
    const others = this.followers.filter((follower) => !polling.includes(follower));
    assert.ok(others.every(undisturbed), 'a drain alone ended a connection');
    await this.caughtUp();
  }

  async stopDrained() {
    const node = await nameOf(this.servers[0]);
    assert.equal(await this.servers[0].stop(), 0);
    await this.left(node);
    await this.caughtUp();
    const others = this.followers.filter((follower) => !this.drained.includes(follower));
    assert.ok(others.every(undisturbed), 'a client of another server was disturbed');
  }

  /** The stopped server comes back to its place, and its new clients with it. */
  async comeBack() {
    const node = await nameOf(await this.serve(new URL(this.servers[0].url).port));
    await this.proxy.restore(0);
    const options = from(address(this.drained[0].number));
    await eventually('no new client comes to the server that is back', async () => {
      return (await nameOf(this.proxy, options)) === node;
    });
  }

  /** Every server is restarted in turn, by SIGTERM alone: nobody tells the proxy. */
  async restartEach() {
    for (const server of this.servers) {
      const [node, before] = [await nameOf(server), this.at(await nameOf(server))];
      assert.equal(await server.stop(), 0, server.stderr());
      await this.left(node);
      await this.serve(new URL(server.url).port);
      const ready = async () => !this.proxy.states || (await this.proxy.states()).every(Boolean);
      await eventually('the proxy does not see that it is back', ready);
      await this.caughtUp();
      // Those who poll may have moved before, when the proxy saw that the server was not ready.
      const deaf = before.filter((follower) => follower.transport === 'websocket' && !follower.heard(GOODBYE));
      assert.equal(deaf.length, 0, `not told: ${describeAll(deaf)}`);
    }
  }

  async killAnother() {
    const node = await nameOf(this.servers[1]);
    await this.servers[1].kill();
    await this.left(node);
    await this.caughtUp();
  }

  /** Everybody has every message, once and in order. */
  async account() {
    await this.publisher.stop();
    const count = this.publisher.offsets.length;
    const offsets = Array.from({ length: count }, (_, n) => n + 1);
    assert.deepEqual(this.publisher.offsets, offsets, 'an acknowledged message has no or another place');
    await eventually('the end of the story', () => this.followers.every((follower) => follower.offset() === count));
    await eventually('the end of the streams', () => this.readers.every((reader) => reader.messages().length >= count));
    for (const follower of this.followers) {
      follower.assertContinuous();
      assert.deepEqual(follower.messages(this.room).map((message) => message.data.n + 1), offsets);
    }
    for (const reader of this.readers) assert.deepEqual(reader.messages().map((message) => message.offset), offsets);
    const back = this.followers.filter((follower) => !undisturbed(follower)).length;
    return `${CLIENTS} clients, ${back} of them came back; ${count} messages, ${this.publisher.failures.length} sent again`;
  }
}

for (const [name, start] of Object.entries(PROXIES)) {
  describe(name, { timeout: 120_000, concurrency: true }, () => {
    test('clients miss nothing when a server is drained, stopped and comes back, and when another one dies', async (t) => {
      const room = `test-progress-behind_${name}`;
      const running = await stage(start, room);
      t.after(running.end);
      const story = new Story(running, name, room);
      await story.begin();
      await story.drain();
      await story.stopDrained();
      await story.comeBack();
      await story.killAnother();
      t.diagnostic(await story.account());
    });

    test('clients miss nothing when each server in turn is restarted by SIGTERM alone', async (t) => {
      const room = `test-progress-rolling_${name}`;
      const running = await stage(start, room);
      t.after(running.end);
      const story = new Story(running, name, room);
      await story.begin();
      await story.restartEach();
      t.diagnostic(await story.account());
    });

    test('while Redis does not answer clients stay where they are, and publishers hear when to try again', async (t) => {
      const room = `test-progress-away_${name}`;
      const { redis, proxy, follow, end } = await stage(start, room);
      t.after(end);
      const followers = Array.from({ length: 15 }, (_, i) => follow(i));
      await Promise.all(followers.map((follower) => follower.joined()));
      await settled(followers);
      process.kill(redis.pid, 'SIGSTOP');
      // HAProxy has taken all servers out by then.
      await eventually('some server is ready', async () => !proxy.states || (await proxy.states()).every((up) => !up));
      const refused = await publishNote(proxy.url, room, 0);
      assert.equal(refused.status, 503);
      assert.match(refused.headers.get('retry-after'), /^\d+$/);
      assert.equal((await refused.json()).code, 'unavailable');
      process.kill(redis.pid, 'SIGCONT');
      await eventually('Redis is not back', async () => (await publishNote(proxy.url, room, 0)).ok);
      await Promise.all(followers.map((follower) => follower.message(room, (message) => message.data.n === 0)));
      for (const follower of followers) follower.assertContinuous();
      assert.ok(followers.every(undisturbed), `a client was disturbed: ${describeAll(followers)}`);
    });
  });
}
