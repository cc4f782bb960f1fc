// Clients that stop reading for a while: they read on from history, and miss nothing.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from './client.mjs';
import { startServer } from './server.mjs';

// More than the kernel, the socket's queue and the outbox hold together.
const MESSAGES = 400;
const CHUNK = 20;
const text = 'x'.repeat(50_000);

const server = await startServer();
after(() => server.stop());

/** Stops the client's reading; the answer resumes it. */
function pause(socket) {
  const { transport } = socket.io.engine;
  if (transport.name === 'websocket') {
    transport.ws._socket.pause();
    return () => transport.ws._socket.resume();
  }
  const poll = transport.doPoll.bind(transport);
  let asked = false;
  transport.doPoll = () => (asked = true);
  return () => {
    transport.doPoll = poll;
    if (asked) poll();
  };
}

for (const transports of [['websocket'], ['polling'], undefined]) {
  const name = transports?.[0] ?? 'polling, then upgraded';
  test(`a client that does not keep up reads on from history and misses nothing: ${name}`, { timeout: 120_000 }, async () => {
    const room = `test-progress-slow_${transports?.[0]}`;
    const client = new Client(server, { transports });
    await client.connected();
    const { engine } = client.socket.io;
    if (!transports && engine.transport.name !== 'websocket') await new Promise((done) => engine.once('upgrade', done));
    await client.join(room);
    const resume = pause(client.socket);
    for (let sent = 0; sent < MESSAGES; sent += CHUNK) {
      const messages = Array.from({ length: CHUNK }, (_, n) => ({ event: 'custom:x', channel: room, data: { n, text } }));
      await server.post('/api/v1/events', messages);
    }
    resume();
    await client.message(room, (message) => message.offset === MESSAGES);
    client.assertContinuous();
    assert.equal(client.messages(room).length, MESSAGES);
    client.close();
  });
}
