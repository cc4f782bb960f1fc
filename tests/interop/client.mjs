// The official client with a log of everything that reaches it, so that order can be checked afterwards.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { assertEnvelope } from './contract.mjs';

const DEADLINE_MS = 20_000;

export class Client {
  /** Everything in the order of its arrival: `{ event, data }`, and `{ join, ack }` for acknowledged joins. */
  log = [];
  #waiting = new Set();

  /** `options` are further ones of the official client. */
  constructor(server, { transports, auth = {}, reconnection = false, options = {} } = {}) {
    this.server = server;
    this.socket = io(server.url, {
      ...(transports && { transports }),
      auth,
      forceNew: true,
      reconnection,
      reconnectionDelay: 50,
      timeout: DEADLINE_MS,
      ...options,
    });
    this.socket.onAny((event, data) => this.#add({ event, data }));
    this.socket.on('connect_error', (error) => this.#add({ event: 'connect_error', data: error.message }));
    this.socket.on('disconnect', (reason) => this.#add({ event: 'disconnect', data: reason }));
  }

  #add(entry) {
    this.log.push(entry);
    for (const check of this.#waiting) check();
  }

  /** Resolves to the first thing that `find(this)` finds, or rejects with what came instead. */
  until(what, find) {
    return new Promise((resolve, reject) => {
      const check = () => {
        const found = find(this);
        if (found === undefined || found === false) return;
        this.#waiting.delete(check);
        clearTimeout(timer);
        resolve(found);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(check);
        const seen = this.log.map((entry) => JSON.stringify(entry).slice(0, 300)).join('\n  ');
        reject(new Error(`no ${what} within ${DEADLINE_MS} ms; seen:\n  ${seen}\nserver:\n${this.server.stderr()}`));
      }, DEADLINE_MS);
      this.#waiting.add(check);
      check();
    });
  }

  /** The first event of that name (and for which `accept` is true). */
  event(name, accept = () => true) {
    const here = (entry) => entry.event === name && accept(entry.data);
    return this.until(name, () => this.log.find(here)).then((entry) => entry.data);
  }

  /** The first message of `channel` for which `accept` is true. */
  message(channel, accept) {
    return this.until(`such a message of ${channel}`, () => this.messages(channel).find(accept));
  }

  async connected() {
    const established = await this.until('connection:established', () =>
      this.log.find((entry) => ['connection:established', 'connect_error'].includes(entry.event)),
    );
    assert.equal(established.event, 'connection:established', String(established.data));
    return established.data;
  }

  async emit(event, ...args) {
    return this.socket.timeout(DEADLINE_MS).emitWithAck(event, ...args);
  }

  /** Joins and demands success. */
  async join(room, options) {
    const request = options ? { room, ...options } : room;
    const ack = await new Promise((resolve, reject) => {
      this.socket.timeout(DEADLINE_MS).emit('room:join', request, (error, ack) => {
        if (error) return reject(new Error(`room:join ${room} was not acknowledged`));
        // Noted before anything that follows it: a promise would resolve too late for that.
        this.#add({ join: request, ack });
        resolve(ack);
      });
    });
    assert.equal(ack.ok, true, JSON.stringify(ack));
    assert.equal(ack.room, room);
    assert.equal(typeof ack.epoch, 'string');
    assert.ok(Number.isInteger(ack.offset) && ack.offset >= 0, `offset ${ack.offset}`);
    assert.equal(typeof ack.recovered, 'boolean');
    assert.ok(Number.isInteger(ack.replayed) && ack.replayed >= 0, `replayed ${ack.replayed}`);
    return ack;
  }

  /** All messages of `channel`, from batches too, in the order of their arrival. */
  messages(channel) {
    return this.log
      .flatMap(({ event, data }) => (event === 'message:batch' ? data : [data]))
      .filter((message) => message?.channel === channel && message.offset !== undefined);
  }

  /** Every message has a complete envelope, and in every joined room offsets rise by `1 + conflated`. */
  assertContinuous() {
    const last = new Map();
    for (const { join, ack, event, data } of this.log) {
      if (join) {
        const since = join.since === 'start' ? { offset: 0 } : join.since;
        const replays = ack.recovered && ack.replayed > 0;
        last.set(ack.room, { epoch: ack.epoch, offset: replays ? since.offset : ack.offset });
      } else if (event === 'room:reset') {
        last.set(data.room, { epoch: data.epoch, offset: data.offset });
      } else {
        for (const message of event === 'message:batch' ? data : [data]) {
          const at = last.get(message?.channel);
          if (!at || message.offset === undefined) continue;
          assertEnvelope(message, event === 'message:batch' ? message.event : event);
          assert.equal(message.epoch, at.epoch, `the epoch of ${message.channel}`);
          const expected = at.offset + 1 + (message.conflated ?? 0);
          assert.equal(message.offset, expected, `the offset of ${JSON.stringify(message)}`);
          at.offset = message.offset;
        }
      }
    }
  }

  close() {
    this.socket.disconnect();
  }
}
