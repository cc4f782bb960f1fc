#!/usr/bin/env node
// A plain Socket.IO server that does the part of tidings which it can do: rooms, and messages into them over HTTP.
//
// One process, set up for speed as somebody would who knows the library: nothing is compressed, requests are let
// go of after the handshake, frames are encoded once per broadcast (the library's own doing). It keeps no
// message, so it may answer a publication before anything is safe. `--redis URL` adds the redis-streams adapter
// and connection state recovery, which is what the library offers against loss.
//
//   server.mjs [--port N] [--redis URL]      prints {"port": N} once it listens
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { Server } from 'socket.io';

// The same as tidings' own defaults.
const PING_INTERVAL_MS = 30_000;
const PING_TIMEOUT_MS = 10_000;
const BACKLOG = 4096;
const MAX_BODY_BYTES = 4 << 20;
const MAX_MESSAGES = 1000;
const NORMAL = 2;

const { values: options } = parseArgs({
  options: { port: { type: 'string', default: '0' }, redis: { type: 'string' } },
});

const http = createServer({ keepAliveTimeout: 75_000, noDelay: true }, (request, response) => {
  if (request.method === 'POST' && request.url === '/api/v1/events') return take(request, response);
  if (request.method === 'GET' && request.url === '/healthz') return answer(response, 200, { status: 'ok' });
  answer(response, 404, { code: 'not_found', title: 'there is nothing here' });
});

const io = new Server(http, {
  pingInterval: PING_INTERVAL_MS,
  pingTimeout: PING_TIMEOUT_MS,
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  ...(options.redis && (await overRedis(options.redis))),
});

// What the library's manual advises for memory: a socket otherwise keeps the request that opened it.
io.engine.on('connection', (raw) => {
  raw.request = null;
});

io.on('connection', (socket) => {
  socket.on('room:join', (wish, acknowledge) => {
    const room = typeof wish === 'string' ? wish : wish?.room;
    if (typeof room !== 'string') {
      return acknowledge?.({ ok: false, error: { code: 'invalid', message: "room:join takes a room's name" } });
    }
    socket.join(room);
    acknowledge?.({ ok: true, room });
  });
});

http.listen({ port: Number(options.port), host: '127.0.0.1', backlog: BACKLOG }, () => {
  console.log(JSON.stringify({ port: http.address().port }));
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(0));

async function overRedis(url) {
  const [{ createClient }, { createAdapter }] = await Promise.all([
    import('redis'),
    import('@socket.io/redis-streams-adapter'),
  ]);
  const client = createClient({ url });
  client.on('error', (error) => {
    console.error(`redis: ${error.message}`);
    process.exit(1);
  });
  await client.connect();
  return { adapter: createAdapter(client), connectionStateRecovery: {} };
}

function take(request, response) {
  const chunks = [];
  let bytes = 0;
  request.on('data', (chunk) => {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) request.destroy();
    chunks.push(chunk);
  });
  request.on('end', () => {
    let body;
    try {
      body = JSON.parse(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks));
    } catch (error) {
      return answer(response, 400, { code: 'invalid_json', title: error.message });
    }
    const offered = Array.isArray(body) ? body : [body];
    const wrong = offered.length > MAX_MESSAGES || !offered.every(isMessage);
    if (wrong) return answer(response, 400, { code: 'invalid', title: 'not a message, or too many' });
    const placed = offered.map((message) => ({ id: publish(message) }));
    if (body === offered) answer(response, 200, { results: placed });
    else answer(response, 201, placed[0]);
  });
}

function isMessage(message) {
  return typeof message?.event === 'string' && typeof message.channel === 'string' && message.data !== undefined;
}

/** Emits `message` to whoever is in the room of its channel; returns its id. */
function publish({ id = nextId(), event, channel, priority = NORMAL, data }) {
  io.to(channel).emit(event, { id, event, channel, priority, timestamp: Date.now(), data });
  return id;
}

// As long as one of tidings' ids, and unique in this process, which is all that a comparison needs.
const born = `msg_${Date.now().toString(36).padStart(13, '0')}`;
let published = 0;
function nextId() {
  published += 1;
  return born + published.toString(36).padStart(13, '0');
}

function answer(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
