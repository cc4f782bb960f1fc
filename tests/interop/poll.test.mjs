// A client that polls, without a library between: what one answer holds.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from './client.mjs';
import { startServer } from './server.mjs';

const DEADLINE_MS = 20_000;
const MESSAGES = 300;
const CHUNK = 50;
// What the server says between two polls is at most 32 KiB; the names and numbers around it come on top.
const ANSWER_BYTES = 40 * 1024;
// While a poll waits, what it takes away and what is said after it may share an answer.
const LATER_ANSWER_BYTES = 2 * ANSWER_BYTES;
const text = 'x'.repeat(1_000);

const server = await startServer();
after(() => server.stop());

/** One session over polling; packets are read only when it is asked to. */
class Poller {
  #url = `${server.url}/socket.io/?EIO=4&transport=polling`;

  /** Polls once: the text of the answer. */
  async poll() {
    const response = await fetch(this.#url, { signal: AbortSignal.timeout(DEADLINE_MS) });
    assert.equal(response.status, 200);
    return response.text();
  }

  async say(packet) {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const response = await fetch(this.#url, { method: 'POST', body: packet, signal });
    assert.equal(response.status, 200);
    await response.text();
  }

  /** Opens the session. */
  async open() {
    const open = await this.poll();
    this.#url += `&sid=${JSON.parse(open.slice(1)).sid}`;
    await this.say('40');
  }

  /** Joins, and reads up to the acknowledgement. */
  async join(room) {
    await this.say(`421${JSON.stringify(['room:join', { room }])}`);
    while (!(await this.poll()).split('\x1e').some((packet) => packet.startsWith('431['))) {
      // The greeting came first.
    }
  }
}

test('one poll takes no more than its answer holds, and the next ones the rest', { timeout: 120_000 }, async () => {
  const room = 'test-progress-polled';
  const poller = new Poller();
  await poller.open();
  await poller.join(room);
  // It joined later: once it has a message, the one that polls was told of it before.
  const witness = new Client(server, { transports: ['websocket'] });
  await witness.connected();
  await witness.join(room);
  for (let sent = 0; sent < MESSAGES; sent += CHUNK) {
    const messages = Array.from({ length: CHUNK }, (_, n) => ({ event: 'custom:x', channel: room, data: { n, text } }));
    await server.post('/api/v1/events', messages);
  }
  await witness.message(room, (message) => message.offset === MESSAGES);

  const offsets = [];
  const sizes = [];
  while (offsets.length < MESSAGES) {
    const answer = await poller.poll();
    sizes.push(Buffer.byteLength(answer));
    for (const packet of answer.split('\x1e')) {
      if (packet === '2') await poller.say('3');
      if (packet.startsWith('42["custom:x"')) offsets.push(JSON.parse(packet.slice(2))[1].offset);
    }
  }
  assert.ok(sizes[0] > text.length, `what was told is there: ${sizes}`);
  assert.ok(sizes[0] < ANSWER_BYTES, `the first answer is no larger than one holds: ${sizes}`);
  assert.ok(Math.max(...sizes) < LATER_ANSWER_BYTES, `nor is any other: ${sizes}`);
  assert.deepEqual(offsets, Array.from({ length: MESSAGES }, (_, n) => n + 1));
  witness.close();
});
