// Tokens as the official client brings them: refused with a reason it can read, ended with one, and back with a newer.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Client } from './client.mjs';
import { startServer } from './server.mjs';

const SECRET = 'the secret of the tests, which is long enough';
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(claims, { seconds = 60 } = {}) {
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url({ exp, ...claims })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

let server;
before(async () => {
  server = await startServer({ settings: { TIDINGS_AUTH__HS256_SECRET: SECRET, TIDINGS_AUTH__LEEWAY: '0s' } });
});
after(() => server.stop());

const find = (event) => (client) => client.log.find((entry) => entry.event === event);
const refusal = async (client) => JSON.parse((await client.until('a refusal', find('connect_error'))).data);

for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
  test(`a token lets in, and none or a wrong one is refused with its reason (${transports})`, async () => {
    for (const [auth, code] of [
      [{}, 'token_required'],
      [{ token: 'a.b.c' }, 'invalid_token'],
      [{ token: token({ sub: 'ann' }, { seconds: -60 }) }, 'token_expired'],
    ]) {
      const client = new Client(server, { transports, auth });
      const told = await refusal(client);
      assert.equal(told.code, code);
      assert.ok(told.message.length > 0);
      client.socket.disconnect();
    }
    const client = new Client(server, { transports, auth: { token: token({ sub: 'ann' }) } });
    const { data } = await client.until('a greeting', find('connection:established'));
    assert.equal(data.userId, 'ann');
    assert.ok(data.expiresAt > Date.now());
    client.socket.disconnect();
  });

  test(`an end is told before it comes, and a newer token leads back (${transports})`, async () => {
    let current = token({ sub: 'ann' }, { seconds: 2 });
    const auth = (give) => give({ token: current });
    const client = new Client(server, { transports, auth, reconnection: true });
    await client.until('a greeting', find('connection:established'));
    const { data } = await client.until('the reason', find('error'));
    assert.deepEqual([data.code, data.event], ['token_expired', 'auth']);
    const gone = await client.until('the end', find('disconnect'));
    // Not `io server disconnect`, after which the client would not come back.
    assert.match(gone.data, /^transport (close|error)$/);
    // It comes back by itself, and is refused for as long as it has no newer token.
    assert.equal((await refusal(client)).code, 'token_expired');
    current = token({ sub: 'ann' });
    client.socket.connect();
    await client.until('a second greeting', ({ log }) => log.filter((e) => e.event === 'connection:established').length === 2);
    client.socket.disconnect();
  });
}

test('a newer token by auth:refresh keeps the connection', async () => {
  const client = new Client(server, { transports: ['websocket'], auth: { token: token({ sub: 'ann' }, { seconds: 2 }) } });
  const { data } = await client.until('a greeting', find('connection:established'));
  const answer = await client.socket.timeout(5000).emitWithAck('auth:refresh', { token: token({ sub: 'ann' }) });
  assert.equal(answer.ok, true);
  assert.ok(answer.expiresAt > data.expiresAt);
  const other = await client.socket.timeout(5000).emitWithAck('auth:refresh', { token: token({ sub: 'bob' }) });
  assert.deepEqual([other.ok, other.error.code], [false, 'other_user']);
  client.socket.disconnect();
});

test('a token in a header or in the query lets in, too', async () => {
  const mine = token({ sub: 'ann' });
  for (const options of [{ query: { token: mine } }, { extraHeaders: { authorization: `Bearer ${mine}` } }]) {
    for (const transports of [['websocket'], ['polling', 'websocket']]) {
      const client = new Client(server, { transports, options });
      const { data } = await client.until('a greeting', find('connection:established'));
      assert.equal(data.userId, 'ann');
      client.socket.disconnect();
    }
  }
});

test('a page of another origin opens no connection', async () => {
  for (const transports of [['websocket'], ['polling']]) {
    const options = { extraHeaders: { origin: 'http://evil.example', authorization: `Bearer ${token({ sub: 'ann' })}` } };
    const client = new Client(server, { transports, options });
    await client.until('a refusal', find('connect_error'));
    assert.equal(find('connection:established')(client), undefined);
    client.socket.disconnect();
  }
});
