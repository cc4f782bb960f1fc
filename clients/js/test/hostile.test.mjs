// What nobody wants and everybody meets: servers that die in a flood, stores that lose all, handlers that throw, rooms
// that are left before they were joined, tokens that cannot be had.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { promisify } from 'node:util';
import { connect } from 'tidings-client';
import { eventually } from '../../../tests/interop/daemon.mjs';
import { startServer } from '../../../tests/interop/server.mjs';
import { believing, mint, withAuthentication } from '../../../tests/interop/token.mjs';

const server = await startServer();
const guarded = await withAuthentication(() => startServer({ settings: believing }));
const clients = [];
let count = 0;
const name = () => `hostile_${process.pid}_${++count}`;

after(() => Promise.all([server.stop(), guarded?.stop()]));
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
function open(options, url = server.url) {
  const client = connect(url, { ...options, socket: { transports: ['websocket'], reconnectionDelay: 50, ...options?.socket } });
  clients.push(client);
  return client;
}
const until = (what, check) => eventually(`no ${what}`, check, 30_000);
const live = (client) => until('live client', () => client.status.state === 'live');
const note = (channel, n) => ({ id: `n-${n}`, channel, event: 'custom:note', data: { n } });
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
function follow(client, channel, options) {
  const told = { notes: [], resets: [], joins: 0 };
  told.room = client.join(channel, { message: ({ data }) => told.notes.push(data.n), reset: (reset) => told.resets.push(reset), joined: () => told.joins++ }, options);
  return told;
}
const present = async (channel) => (await (await fetch(`${server.url}/api/v1/channels/${channel}/presence`)).json()).connections;

test('a server that is killed in a flood, again and again, loses nothing that it took, and nothing comes twice', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await live(client);
  const publish = async () => {
    for (const first of range(0, 29).map((n) => n * 20 + 1)) {
      const batch = range(first, first + 19).map((n) => note(channel, n));
      // Sent again under the same ids until it was answered: taken once, however often it came.
      await until('answer', async () => {
        const answer = await fetch(`${server.url}/api/v1/events`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(batch) }).catch(() => undefined);
        return answer?.status === 200 && (await answer.json().catch(() => ({})))?.results?.every(({ error }) => !error);
      });
    }
  };
  const publishing = publish();
  for (const at of [100, 300, 450]) {
    await until(`${at} notes`, () => told.notes.length >= at);
    await server.restart();
  }
  await publishing;
  await until('all notes', () => told.notes.length >= 600);
  assert.deepEqual(told.notes, range(1, 600));
  assert.deepEqual(told.resets, []);
  assert.ok(told.joins >= 2, `${told.joins} joins`);
});

test('a store that lost everything is no silent gap: the room is told, and goes on', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await live(client);
  for (const n of range(1, 3)) await client.publish(note(channel, n));
  await until('notes', () => told.notes.length === 3);
  const { epoch } = told.room.position;
  await server.kill();
  await rm(join(server.dir, 'data'), { recursive: true });
  await server.restart();
  await until('reset', () => told.resets.length === 1);
  await live(client);
  assert.notEqual(told.resets[0].epoch, epoch);
  assert.equal(told.resets[0].reason, 'epoch_changed');
  for (const n of range(4, 6)) await client.publish(note(channel, n));
  await until('notes', () => told.notes.length === 6);
  assert.deepEqual(told.notes, range(1, 6));
  assert.deepEqual({ ...told.room.position }, { epoch: told.resets[0].epoch, offset: 3 });
});

test('a room that is left before it was joined, or in the middle of a batch, tells nothing more', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  await live(client);
  const left = range(1, 20).map(() => {
    const told = follow(client, channel, { since: 'start' });
    told.room.leave();
    return told;
  });
  await client.request('POST', '/api/v1/events', range(1, 50).map((n) => note(channel, n)));
  await until('empty room', async () => (await present(channel)) === 0);
  assert.deepEqual(left.flatMap(({ notes, joins }) => [notes.length, joins]), Array(40).fill(0));

  const some = [];
  const room = client.join(channel, ({ data }) => some.push(data.n) === 7 && room.leave(), { since: 'start' });
  await until('seven notes', () => some.length === 7);
  await until('empty room', async () => (await present(channel)) === 0);
  await client.publish(note(channel, 51));
  const again = follow(client, channel, { since: 'start' });
  await until('all notes', () => again.notes.length === 51);
  assert.deepEqual(some, range(1, 7));
  assert.equal(client.status.state, 'live');
});

test('of two joins of one room the second counts, and the first one cannot leave it', async () => {
  const client = open();
  const channel = `test-progress-${name()}`;
  // Before there is a connection, and while the first one is on its way.
  const early = [follow(client, channel, { since: 'start' }), follow(client, channel, { since: 'start' })];
  await live(client);
  const late = [follow(client, channel, { since: 'start' }), follow(client, channel, { since: 'start' })];
  await client.request('POST', '/api/v1/events', range(1, 30).map((n) => note(channel, n)));
  await until('all notes', () => late[1].notes.length === 30);
  for (const told of [...early, late[0]]) told.room.leave();
  await client.publish(note(channel, 31));
  await until('last note', () => late[1].notes.length === 31);
  assert.deepEqual(late[1].notes, range(1, 31));
  assert.deepEqual([...early, late[0]].flatMap(({ notes }) => notes), []);
  assert.equal(await present(channel), 1);
});

test('a handler that throws is heard of, and costs no message', async () => {
  const channel = `test-progress-${name()}`;
  const script = `
    import { connect } from 'tidings-client';
    const errors = [], notes = [];
    process.on('uncaughtException', (error) => errors.push(error.message));
    const client = connect(${JSON.stringify(server.url)}, { acks: true, socket: { transports: ['websocket'] } });
    client.onStatus(() => { throw new Error('status'); });
    client.join(${JSON.stringify(channel)}, {
      joined() { throw new Error('joined'); },
      snapshot() { throw new Error('snapshot'); },
      message({ data: { n } }) { notes.push(n); if (n % 3 === 0) throw new Error('note ' + n); },
    }, { since: 'start' });
    const alerts = [];
    client.join('system-alerts', ({ data }) => { alerts.push(data.message); throw new Error('alert'); }, { since: 'now' });
    const wait = async (check) => { for (const end = Date.now() + 20_000; !check(); ) { if (Date.now() > end) { console.log(JSON.stringify({ notes, alerts, state: client.status.state, errors })); process.exit(1); } await new Promise((done) => setTimeout(done, 20)); } };
    await wait(() => client.status.state === 'live');
    const batch = Array.from({ length: 30 }, (_, i) => ({ channel: ${JSON.stringify(channel)}, event: 'custom:note', data: { n: i + 1 } }));
    await client.request('POST', '/api/v1/events', batch);
    // A critical one is acknowledged all the same, so that it does not come again.
    await client.request('POST', '/api/v1/broadcast', { level: 'warning', message: 'once' });
    await wait(() => notes.length === 30 && alerts.length === 1);
    console.log(JSON.stringify({ notes, alerts, state: client.status.state, errors: [...new Set(errors)].sort() }));
    client.close();
    process.exit();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname, timeout: 60_000 });
  const { notes, alerts, state, errors } = JSON.parse(stdout);
  assert.deepEqual(notes, range(1, 30));
  assert.deepEqual([alerts, state], [['once'], 'live']);
  assert.deepEqual(errors, ['alert', 'joined', ...range(1, 10).map((n) => `note ${n * 3}`).sort(), 'status']);
});

const needed = { skip: !guarded && 'this server has no authentication' };

test('where tokens cannot be had for a while it comes back by itself, with all that it missed', needed, async () => {
  let down = true;
  let asked = 0;
  const token = () => {
    asked++;
    if (down) throw new Error('the place of tokens is closed');
    return mint('ann');
  };
  const client = open({ token }, guarded.url);
  await until('loss', () => client.status.state === 'offline' && asked >= 2);
  assert.match(client.status.error.message, /the place of tokens is closed/);
  await assert.rejects(client.request('GET', '/api/v1/jobs'), { name: 'TidingsError', code: 'offline' });
  down = false;
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await live(client);
  // It is closed again, and the server restarts under it.
  down = true;
  await guarded.restart();
  await until('loss', () => client.status.state === 'offline');
  const before = asked;
  await until('tries', () => asked > before + 1);
  await fetch(`${guarded.url}/api/v1/events`, { method: 'POST', headers: { authorization: `Bearer ${mint('root')}`, 'content-type': 'application/json' }, body: JSON.stringify(note(channel, 1)) });
  down = false;
  await until('what was missed', () => told.notes.length === 1);
  await live(client);
});

test('a token that ends and has no successor ends in a refusal, not in a storm; a new one goes on without a gap', needed, async () => {
  let token = mint('ann', { seconds: 3 });
  let asked = 0;
  const client = open({ token: () => (asked++, token) }, guarded.url);
  const channel = `test-progress-${name()}`;
  const told = follow(client, channel, { since: 'start' });
  await live(client);
  await client.publish(note(channel, 1));
  await until('first note', () => told.notes.length === 1);
  await until('refusal', () => client.status.state === 'refused');
  assert.equal(client.status.error.code, 'token_expired');
  const before = asked;
  const other = open({ token: mint('root') }, guarded.url);
  await live(other);
  await other.publish(note(channel, 2));
  assert.equal(asked, before, 'it asks no more');
  assert.ok(asked < 12, `asked ${asked} times`);
  token = mint('ann');
  client.connect();
  await until('second note', () => told.notes.length === 2);
  assert.deepEqual(told.notes, [1, 2]);
});

test('an answer that says nothing is an error as any other', async () => {
  const proxy = createServer((_, answer) => answer.writeHead(502, { 'content-type': 'application/json' }).end('null'));
  await new Promise((ready) => proxy.listen(0, '127.0.0.1', ready));
  const client = open({}, `http://127.0.0.1:${proxy.address().port}`);
  try {
    await assert.rejects(client.request('GET', '/api/v1/jobs'), { name: 'TidingsError', code: 'http', status: 502 });
  } finally {
    client.close();
    proxy.close();
  }
});
