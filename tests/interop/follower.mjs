// A client that comes back: whatever ends its connection, it joins its room again with the last position it knows.
import { Agent, get } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from './client.mjs';
import { eventually } from './daemon.mjs';

const RETRY_MS = 50;

/**
 * Options of the official client that make it come from `address`, one of the loopback's. As without an agent, each
 * request has a connection of its own: where a kept one is reset, Node's client sends its request again without an
 * end, and hangs until its heartbeat misses.
 */
export const from = (address) => ({ localAddress: address, agent: new Agent({ localAddress: address }) });

export class Follower extends Client {
  #since;

  constructor(server, room, options) {
    super(server, { reconnection: true, ...options });
    this.room = room;
    this.transport = options?.transports?.[0] ?? 'websocket';
    this.socket.onAny((event, data) => {
      if (data?.channel === room && data.offset !== undefined) this.#since = { epoch: data.epoch, offset: data.offset };
    });
    this.socket.on('connection:established', () => this.#follow());
  }

  async #follow() {
    const { id } = this.socket;
    while (this.socket.connected && this.socket.id === id) {
      const ack = await this.#attempt().catch(() => undefined);
      if (ack) return;
      await pause(RETRY_MS);
    }
  }

  async #attempt() {
    const ack = await this.join(this.room, this.#since && { since: this.#since });
    this.#since ??= { epoch: ack.epoch, offset: ack.offset };
    return ack;
  }

  /** The offset of the newest message that it has. */
  offset() {
    return this.#since?.offset ?? 0;
  }

  heard(event) {
    return this.log.some((entry) => entry.event === event);
  }

  /** What it is told when it connects; the last one says where it is. */
  visits() {
    return this.log.filter((entry) => entry.event === 'connection:established').map((entry) => entry.data.node);
  }

  node() {
    return this.visits().at(-1);
  }

  joined() {
    return this.until('a joined room', () => this.log.some((entry) => entry.join));
  }
}

/**
 * Every client has the transport that it wants. Until then none should lose its server: one that does so at the very
 * moment of its upgrade stops polling, and learns only from its heartbeat that nothing comes.
 */
export function settled(followers) {
  const here = ({ socket, transport }) => socket.connected && socket.io.engine.transport.name === transport;
  return eventually('not every client was upgraded', () => followers.every(here));
}

/** Who answers at `server`. */
export async function nameOf(server, options) {
  const client = new Client(server, { transports: ['websocket'], options });
  const { node } = await client.connected();
  client.close();
  return node;
}

/** Reads a channel as server-sent events, and comes back with the last id as an `EventSource` does. */
export class Reader {
  /** What came: `{ id, event, data }`. */
  events = [];
  /** How often it was connected. */
  opened = 0;
  #closed = false;
  #request;

  constructor(url, { address = '127.0.0.1' } = {}) {
    this.url = url;
    this.address = address;
    this.done = this.#run();
  }

  async #run() {
    while (!this.#closed) {
      await this.#read().catch(() => undefined);
      if (!this.#closed) await pause(RETRY_MS);
    }
  }

  #read() {
    const id = this.events.findLast((event) => event.id)?.id;
    const headers = { accept: 'text/event-stream', ...(id && { 'last-event-id': id }) };
    return new Promise((resolve, reject) => {
      this.#request = get(this.url, { agent: false, localAddress: this.address, headers }, (response) => {
        response.once('error', reject).once('close', resolve);
        if (response.statusCode !== 200) return response.resume();
        this.opened += 1;
        let text = '';
        response.setEncoding('utf8').on('data', (chunk) => {
          const blocks = (text + chunk).split('\n\n');
          text = blocks.pop();
          for (const block of blocks) this.#take(block);
        });
      });
      this.#request.once('error', reject);
    });
  }

  #take(block) {
    const fields = block.split('\n').map((line) => /^(\w+): (.*)$/.exec(line)).filter(Boolean);
    const { id, event, data } = Object.fromEntries(fields.map(([, name, value]) => [name, value]));
    if (id !== undefined || data !== undefined) this.events.push({ id, event, data: data && JSON.parse(data) });
  }

  /** The messages, without what opens a stream. */
  messages() {
    const messages = this.events.filter(({ event, data }) => data?.offset !== undefined && event !== 'snapshot');
    return messages.map((event) => event.data);
  }

  async close() {
    this.#closed = true;
    this.#request?.destroy();
    await this.done;
  }
}
