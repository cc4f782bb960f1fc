// Three servers that share a Redis behind a real proxy, and who talks to them: stock clients of every kind, readers of
// streams, and a publisher that never gives up.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from './daemon.mjs';
import { Follower, from, Reader } from './follower.mjs';
import { startRedis } from './redis.mjs';
import { startServer } from './server.mjs';

const KINDS = [
  { transports: ['polling'] },
  { transports: ['websocket'] },
  { transports: undefined },
  { transports: ['polling'], cookies: true },
  { transports: undefined, cookies: true },
];
const EVERY_MS = 5;

/** One of the loopback's addresses for each client, so that proxies can tell them apart. */
export const address = (i) => `127.0.${10 + Math.floor(i / 200)}.${1 + (i % 200)}`;

/** Publishes note `n` of `room`, once; again and again is the same. */
export function publishNote(url, room, n) {
  const body = JSON.stringify({ id: `note-${n}`, event: 'custom:note', channel: room, data: { n } });
  const headers = { 'content-type': 'application/json' };
  return fetch(`${url}/api/v1/events`, { method: 'POST', headers, body, signal: AbortSignal.timeout(5_000) });
}

/** Publishes one message after the other until it is told to stop; each until it is acknowledged, by its id. */
export class Publisher {
  /** The offsets of what was acknowledged, in order. */
  offsets = [];
  failures = [];
  #stopped = false;

  constructor(url, room) {
    this.done = this.#run(url, room);
  }

  async #run(url, room) {
    for (let n = 0; !this.#stopped; n++) {
      const { offset } = await eventually(() => `note ${n}: ${this.failures.at(-1)}`, async () => {
        try {
          const answer = await publishNote(url, room, n);
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

/**
 * What a story of `room` needs, behind the proxy that `start` starts; `end()` takes it down again, however far it came.
 * `serve` starts a further server, `follow`, `read` and `publish` somebody who does so.
 */
export async function stage(start, room) {
  const [machines, people] = [[], []];
  const keep = async (starting) => {
    const running = await starting;
    machines.unshift(() => running.stop());
    return running;
  };
  const end = async () => {
    // One that fails must not keep the others from being ended; and people leave before a server that came back late
    // in the story does, or they would look for another one.
    const outcomes = [];
    for (const step of [...people, ...machines]) outcomes.push(await Promise.resolve(step()).then(() => undefined, (error) => error));
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
      people.unshift(() => follower.close());
      return Object.assign(follower, { number: i, cookies });
    };
    const read = (i) => {
      const url = `${proxy.url}/api/v1/channels/${room}/stream`;
      const reader = new Reader(url, { address: address(i) });
      people.unshift(() => reader.close());
      return reader;
    };
    const publish = () => {
      const publisher = new Publisher(proxy.url, room);
      people.unshift(() => publisher.stop());
      return publisher;
    };
    return { redis, servers, proxy, serve, follow, read, publish, end };
  } catch (error) {
    await end();
    throw error;
  }
}
