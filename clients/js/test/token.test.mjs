// Tokens: who has none is told so, and who renews theirs stays.
import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { connect } from 'tidings-client';
import { eventually } from '../../../tests/interop/daemon.mjs';
import { startServer } from '../../../tests/interop/server.mjs';
import { believing, mint, withAuthentication } from '../../../tests/interop/token.mjs';

const server = await withAuthentication(() => startServer({ settings: believing }));
const needed = { skip: !server && 'this server has no authentication' };
const clients = [];
after(() => server?.stop());
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
function open(token) {
  const client = connect(server.url, { token, socket: { transports: ['websocket'] } });
  clients.push(client);
  return client;
}
const until = (what, check) => eventually(`no ${what}`, check);

test('without a token, or with a wrong one, it is refused and does not try for ever; a good one lets it in', needed, async () => {
  let token;
  const client = open(() => token);
  await until('refusal', () => client.status.state === 'refused');
  assert.equal(client.status.error.code, 'token_required');
  await assert.rejects(client.request('GET', '/api/v1/jobs'), { status: 401, code: 'token_required' });
  token = mint('ann', { secret: 'another secret that is long enough for this, but not the one of the server' });
  client.connect();
  await until('other refusal', () => client.status.error?.code === 'invalid_token');
  token = mint('ann');
  client.connect();
  await until('way in', () => client.status.state === 'live');
  assert.equal(client.session.userId, 'ann');
  await client.request('GET', '/api/v1/jobs');
});

test('a token is renewed before it ends, and the connection stays', needed, async () => {
  let given = 0;
  const client = open(() => (given++, mint('ann', { seconds: 6 })));
  const messages = [];
  client.join('test-progress-renewed', (message) => messages.push(message), { since: 'start' });
  await until('way in', () => client.status.state === 'live');
  const { connectionId } = client.session;
  const states = [];
  client.onStatus(({ state }) => states.push(state));
  const end = Date.now() + 9_000;
  await until('more than one token', () => Date.now() > end && given > 2);
  await client.publish({ channel: 'test-progress-renewed', event: 'custom:note', data: {} });
  await until('message', () => messages.length === 1);
  assert.deepEqual(states, ['live']);
  assert.equal(client.session.connectionId, connectionId);
});
