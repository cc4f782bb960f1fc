// What docs/deploy promises, piece by piece: proxies before servers that know nothing of each other, and the rest.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from './client.mjs';
import { eventually, freePort } from './daemon.mjs';
import { ask, startEcho } from './echo.mjs';
import { Follower, from, nameOf, Reader, settled } from './follower.mjs';
import { configuration, exchange, PROXIES } from './proxies.mjs';
import { BIN, env, startServer } from './server.mjs';

const TRANSPORTS = { default: undefined, websocket: ['websocket'], polling: ['polling'] };
const AT_ONCE = { timeout: 120_000, concurrency: true };
// Every time-out of a connection that may be silent.
const TIME_OUT = '75s';
const FLOOD_BYTES = 64 * 1024 * 1024;

const servers = await Promise.all([startServer(), startServer(), startServer()]);
after(() => Promise.all(servers.map((server) => server.stop())));
const urls = servers.map((server) => server.url);

const note = (channel, n, rest) => ({ event: 'custom:note', channel, data: { n }, ...rest });

describe('docs/deploy', { concurrency: true }, () => {
  for (const [name, start] of Object.entries(PROXIES)) describe(name, AT_ONCE, () => proxied(name, start));
  describe('each file', AT_ONCE, alone);
});

/** What is true of one of the files alone. */
function alone() {
  test('nginx with affinity by cookie spreads clients behind one address, and each stays with its server', async (t) => {
    const byCookie = [
      ['hash $remote_addr consistent;', 'hash $affinity consistent;'],
      ['# add_header Set-Cookie', 'add_header Set-Cookie'],
    ];
    const proxy = await PROXIES.nginx(urls, byCookie);
    t.after(() => proxy.stop());
    const room = 'test-progress-cookie';
    const clients = Array.from({ length: 30 }, (_, i) => {
      return new Follower(proxy, room, { transports: i % 2 ? ['polling'] : undefined, options: { withCredentials: true } });
    });
    t.after(() => clients.forEach((client) => client.close()));
    await Promise.all(clients.map((client) => client.joined()));
    await settled(clients);
    await Promise.all(servers.map((server) => server.post('/api/v1/events', note(room, 1))));
    await Promise.all(clients.map((client) => client.message(room, (m) => m.data.n === 1)));
    assert.equal(new Set(clients.map((client) => client.node())).size, 3, 'some server got no client');
    assert.ok(clients.every((client) => client.visits().length === 1), 'a client lost its connection');
  });

  test('what the systemd unit starts is a server, which SIGTERM ends with 0', async (t) => {
    const [dir, port] = [await mkdtemp(join(tmpdir(), 'tidings-unit-')), await freePort()];
    await writeFile(join(dir, 'tidings.toml'), '');
    const unit = await configuration('tidings@.service');
    const [, line] = /^ExecStart=(.*)$/m.exec(unit);
    const [, state] = /^StateDirectory=(.*)$/m.exec(unit);
    await mkdir(join(dir, exchange(state, [['%i', port]])), { recursive: true });
    const places = [['/usr/local/bin/tidings', BIN], ['/etc/tidings', dir], ['%S', dir], ['%i', port]];
    const [command, ...args] = exchange(line, places).split(' ');
    const child = spawn(command, args, { cwd: dir, env, stdio: 'ignore' });
    const ended = once(child, 'exit');
    t.after(async () => {
      child.kill('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    });
    await eventually('the unit\'s server is not ready', () => {
      return ask(`http://127.0.0.1:${port}/readyz`).then(({ status }) => status === 200, () => false);
    });
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
  });

  test('the image\'s health check tells a server that runs from one that does not', async () => {
    const [, argv] = /HEALTHCHECK .*\\\n\s+CMD (\[.*\])\n/.exec(await configuration('Dockerfile'));
    const [command, ...args] = JSON.parse(argv);
    const check = (port) => {
      const changed = args.map((arg) => arg.replace('127.0.0.1/8080', `127.0.0.1/${port}`));
      assert.notDeepEqual(changed, args);
      return new Promise((resolve) => execFile(command, changed, (error) => resolve(error?.code ?? 0)));
    };
    assert.equal(await check(new URL(urls[0]).port), 0);
    assert.equal(await check(await freePort()), 1);
  });
}

/** What both proxies have to do. */
async function proxied(name, start) {
  const proxy = await start(urls);
  after(() => proxy.stop());

  for (const [transport, transports] of Object.entries(TRANSPORTS)) {
    test(`every client stays with its server, and clients are spread: ${transport}`, async (t) => {
      const room = `test-progress-spread_${name}_${transport}`;
      const clients = Array.from({ length: 30 }, (_, i) => {
        return new Follower(proxy, room, { transports, options: from(`127.0.1.${i + 1}`) });
      });
      t.after(() => clients.forEach((client) => client.close()));
      await Promise.all(clients.map((client) => client.joined()));
      await settled(clients);
      await Promise.all(servers.map((server) => server.post('/api/v1/events', [note(room, 1), note(room, 2)])));
      await Promise.all(clients.map((client) => client.message(room, (m) => m.data.n === 2)));
      assert.equal(new Set(clients.map((client) => client.node())).size, 3, 'some server got no client');
      for (const client of clients) {
        client.assertContinuous();
        assert.equal(client.visits().length, 1, 'a client lost its connection');
      }
    });
  }

  test('connections that are ended come back, and cost nobody else theirs', async (t) => {
    const room = `test-progress-ended_${name}`;
    // Polls share the proxy's connections to the server.
    const clients = Array.from({ length: 30 }, (_, i) => {
      const transports = [i % 3 ? 'polling' : 'websocket'];
      return new Follower(proxy, room, { transports, options: from('127.0.5.1') });
    });
    t.after(() => clients.forEach((client) => client.close()));
    await Promise.all(clients.map((client) => client.joined()));
    const server = servers[(await Promise.all(servers.map(nameOf))).indexOf(clients[0].node())];
    const [ended, others] = [clients.slice(0, 12), clients.slice(12)];
    const established = await Promise.all(ended.map((client) => client.connected()));
    const connectionIds = established.map(({ connectionId }) => connectionId);
    assert.equal((await server.post('/api/v1/connections/cleanup', { connectionIds })).closed, ended.length);
    const joins = (client) => client.log.filter((entry) => entry.join).length;
    await eventually('who was ended does not come back', () => ended.every((client) => joins(client) > 1));
    await server.post('/api/v1/events', note(room, 1));
    await Promise.all(clients.map((client) => client.message(room, (m) => m.data.n === 1)));
    assert.ok(clients.every((client) => new Set(client.visits()).size === 1), 'a client came to another server');
    assert.ok(others.every((client) => client.visits().length === 1), 'a connection went that nobody ended');
  });

  test('a server-sent event does not wait for the next one', async () => {
    const echo = await startEcho();
    const before = await start(echo.urls);
    const reader = new Reader(`${before.url}/api/v1/channels/x/stream`);
    try {
      for (let n = 1; n <= 3; n++) {
        await eventually(`event ${n} was held back`, () => reader.events.length === n);
        assert.deepEqual(reader.events.map((event) => event.data), Array.from({ length: n }, (_, i) => i + 1));
        echo.streams[0].write(`data: ${n + 1}\n\n`);
      }
    } finally {
      await reader.close();
      await before.stop();
      echo.stop();
    }
  });

  test('what a stream\'s reader does not take waits at the server, not in the proxy', async () => {
    const echo = await startEcho();
    const before = await start(echo.urls);
    const sent = request(`${before.url}/api/v1/channels/x/stream`, { agent: false }).end();
    try {
      // Nobody reads it.
      await once(sent, 'response');
      const [stream] = echo.streams;
      // In pieces, because a piece waits as a whole until all of it is taken.
      const piece = Buffer.alloc(FLOOD_BYTES / 1024, 'data: flood\n\n');
      for (let n = 0; n < 1024; n++) stream.write(piece);
      let [waits, same] = [stream.writableLength, 0];
      while (same < 20) {
        await pause(50);
        same = stream.writableLength === waits ? same + 1 : 0;
        waits = stream.writableLength;
      }
      assert.ok(waits > FLOOD_BYTES / 2, `only ${waits} bytes wait at the server`);
    } finally {
      sent.destroy();
      await before.stop();
      echo.stop();
    }
  });

  test('who goes away while the server is silent is gone for the server, too', async () => {
    const echo = await startEcho();
    const before = await start(echo.urls);
    const reader = new Reader(`${before.url}/api/v1/channels/x/stream`);
    try {
      await eventually('the stream does not open', () => reader.events.length === 1);
      assert.equal(echo.streams[0].closed, false);
      await reader.close();
      await eventually('the server still has the stream', () => echo.streams[0].closed);
    } finally {
      await reader.close();
      await before.stop();
      echo.stop();
    }
  });

  test('the address is the one that the proxy saw, whatever the client says', async () => {
    const echo = await startEcho();
    const before = await start(echo.urls);
    try {
      const headers = { host: 'tidings.example', 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'gopher' };
      const seen = JSON.parse((await ask(before.url, { address: '127.0.3.1', headers })).text);
      assert.equal(seen['x-forwarded-for'], '127.0.3.1');
      assert.equal(seen['x-forwarded-proto'], 'http');
      assert.equal(seen.host, 'tidings.example');
    } finally {
      await before.stop();
      echo.stop();
    }
  });

  test('only the network that is named gets through', async () => {
    const before = await start(urls, [['127.0.0.0/8', '127.0.0.0/16']]);
    try {
      assert.equal((await ask(`${before.url}/healthz`)).status, 200);
      assert.equal((await ask(`${before.url}/healthz`, { address: '127.9.0.1' })).status, 403);
    } finally {
      await before.stop();
    }
  });

  test('what stands in a query is not in the log', async () => {
    const before = await start(urls);
    try {
      const { status } = await ask(`${before.url}/api/v1/stats?token=geheim`);
      assert.equal(status, 200);
      const log = await eventually('the request is not in the log', async () => {
        const text = await before.accessLog();
        return text.includes('/api/v1/stats') && text;
      });
      assert.doesNotMatch(log, /geheim/);
    } finally {
      await before.stop();
    }
  });

  test('metrics are not for everybody', async () => {
    assert.equal((await ask(`${proxy.url}/metrics`)).status, 404);
    assert.equal((await ask(`${urls[0]}/metrics`)).status, 200);
  });

  test('a silent connection outlives the time-outs of the proxy, as long as the server\'s heart beats', async (t) => {
    const silent = await startServer({ settings: { TIDINGS_HEARTBEAT__INTERVAL: '1h', TIDINGS_HEARTBEAT__TIMEOUT: '1h' } });
    const beating = await startServer({ settings: { TIDINGS_HEARTBEAT__INTERVAL: '1500ms' } });
    // The same relation as in the files, only twenty times as fast: 75 s and a heartbeat of 30 s.
    const faster = [[TIME_OUT, '3750ms']];
    const [cut, kept] = await Promise.all([silent, beating].map(({ url }) => start([url, url, url], faster)));
    t.after(() => Promise.all([silent, beating, cut, kept].map((running) => running.stop())));
    const room = 'test-progress-silent';
    const clients = (proxy) => Object.values(TRANSPORTS).map((transports) => new Follower(proxy, room, { transports }));
    const [ended, lasting] = [clients(cut), clients(kept)];
    t.after(() => [...ended, ...lasting].forEach((client) => client.close()));
    await Promise.all([...ended, ...lasting].map((client) => client.joined()));
    await settled(lasting);
    const again = (client) => client.until('the end by a time-out', () => client.visits().length > 1);
    await Promise.all(ended.map(again));
    const cutOff = lasting.filter((client) => client.visits().length > 1);
    assert.deepEqual(cutOff.map((client) => client.log), [], 'a connection was cut');
    await beating.post('/api/v1/events', note(room, 1));
    await Promise.all(lasting.map((client) => client.message(room, (m) => m.data.n === 1)));
  });

  test('time-outs are longer than a connection of this version is ever silent', async () => {
    const client = new Client(proxy, { transports: ['websocket'] });
    const { heartbeat } = await client.connected();
    client.close();
    const text = await configuration({ nginx: 'nginx.conf', HAProxy: 'haproxy.cfg' }[name]);
    const names = { nginx: /proxy_(?:read|send)_timeout (\w+);/g, HAProxy: /timeout (?:client|server|tunnel) (\w+)$/gm };
    const found = [...text.matchAll(names[name])].map(([, duration]) => duration);
    assert.ok(found.length >= 2 && found.every((duration) => duration === TIME_OUT), found.join());
    assert.ok(parseInt(TIME_OUT) * 1000 > heartbeat.intervalMs + heartbeat.timeoutMs);
  });

  test('a request as large as tidings takes gets through, and a larger one is refused', async () => {
    const room = `test-progress-large_${name}`;
    const whole = 4 * 1024 * 1024;
    const messages = Array.from({ length: 80 }, (_, n) => note(room, n, { data: { n, text: 'x'.repeat(52_000) } }));
    const body = JSON.stringify(messages);
    assert.ok(body.length <= whole && body.length > whole - 100_000, `${body.length}`);
    const headers = { 'content-type': 'application/json' };
    const post = (size) => ask(`${proxy.url}/api/v1/events`, { method: 'POST', headers, body: body.padEnd(size) });
    const { status, text } = await post(whole);
    assert.equal(status, 200, text.slice(0, 500));
    assert.equal(JSON.parse(text).results.filter((result) => result.offset).length, messages.length);
    assert.equal((await post(whole + 1)).status, 413);
  });
}
