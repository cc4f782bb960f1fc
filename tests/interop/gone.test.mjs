// Clients that go away while they connect: the server keeps nothing of them.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createRequire } from 'node:module';
import { startServer } from './server.mjs';

// The WebSocket of the official client: a plain one goes away at any moment, which the client itself does not.
const WebSocket = createRequire(createRequire(import.meta.url).resolve('engine.io-client'))('ws');
const ROUNDS = 4;
const CLIENTS = 2000;
const DEADLINE_MS = 20_000;

const server = await startServer();
after(() => server.stop());

/** Connects, and goes away within 3 ms of the connect packet. */
function comeAndGo() {
  return new Promise((done) => {
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
    socket.on('error', done);
    socket.on('close', done);
    socket.once('message', () => {
      socket.send('40');
      setTimeout(() => socket.terminate(), Math.random() * 3);
    });
  });
}

async function connections() {
  const metrics = await fetch(`${server.url}/metrics`).then((response) => response.text());
  return Number(/^tidings_connections (\d+)$/m.exec(metrics)[1]);
}

test('clients that go while they connect leave nothing behind', { timeout: 120_000 }, async () => {
  for (let round = 0; round < ROUNDS; round++) await Promise.all(Array.from({ length: CLIENTS }, comeAndGo));
  const deadline = Date.now() + DEADLINE_MS;
  while ((await connections()) > 0 && Date.now() < deadline) await new Promise((next) => setTimeout(next, 100));
  assert.equal(await connections(), 0);
});
