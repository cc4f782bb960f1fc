// Signing in: the page shows nothing without a token that the server takes, and goes on with a new one.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ask, believing, mint, withAuthentication } from '../../tests/interop/token.mjs';
import { nothingSerious } from './axe.mjs';
import { openStage, visitor } from './stage.mjs';

const stage = await withAuthentication(() => openStage({ settings: believing }));
const needed = { skip: !stage && 'this server has no authentication' };
const { server } = stage ?? {};
const admin = mint('root');
const submit = (testId, params) => ask(server, admin, 'POST', '/api/v1/jobs', { testType: 'command', testId, config: { suite: 'unit', params }, maxAttempts: 1 });
const open = stage && visitor(stage);

after(() => stage?.stop());
async function signIn(page, token) {
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

test('nothing is shown without a token; a wrong one is refused, a good one is kept in this tab only', needed, async () => {
  await submit('secret-test', { TESTS: '400', PACE_MS: '300' });
  const page = await open('#/tests/secret-test');
  await page.getByText('This server wants to know who you are.').waitFor();
  assert.equal(await page.getByText('secret-test').count(), 0);
  await signIn(page, mint('ann', { secret: 'another secret that is long enough for this, but not the one of the server' }));
  await page.getByText('This token is not taken.').waitFor();
  await signIn(page, mint('ann'));
  await page.getByRole('heading', { name: 'secret-test' }).waitFor();
  await page.locator('[data-state=live]').waitFor();
  await page.reload();
  await page.getByRole('heading', { name: 'secret-test' }).waitFor();
  assert.deepEqual(await page.evaluate(() => [Object.keys(localStorage), document.cookie]), [[], '']);
  const tab = await page.context().newPage();
  await tab.goto(`${stage.url}/#/tests/secret-test`);
  await tab.getByRole('button', { name: 'Sign in' }).waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByText('This server wants to know who you are.').waitFor();
  assert.equal(await page.getByRole('heading', { name: 'secret-test' }).count(), 0);
});

test('a link may bring a token, which does not stay in the address', needed, async () => {
  const page = await open(`#token=${mint('ann')}`);
  await page.locator('[data-state=live]').waitFor();
  assert.equal(new URL(page.url()).hash, '#/');
  await page.getByRole('link', { name: 'Inbox' }).click();
  await page.getByText('Nothing is unread.').waitFor();
});

test('who may not see the metrics is told so, and sees the rest', needed, async () => {
  const page = await open(`#token=${mint('bob', { roles: [] })}`);
  await page.locator('[data-state=live]').waitFor();
  await page.getByRole('link', { name: 'Server' }).click();
  await page.getByText(/The metrics cannot be shown/).waitFor();
  await page.getByRole('region', { name: 'Alerts' }).waitFor();
});

test('a token that ends under the open page is asked for again, and the page goes on where it is', needed, async () => {
  const page = await open(`#token=${mint('ann', { seconds: 4 })}`);
  await page.locator('[data-state=live]').waitFor();
  await page.evaluate(() => void (globalThis.marked = true));
  await page.getByText('Your token has expired.').waitFor();
  await submit('while-away', { TESTS: '400', PACE_MS: '300' });
  await signIn(page, mint('ann'));
  await page.getByRole('region', { name: 'Running' }).getByText('while-away').waitFor();
  assert.equal(await page.evaluate(() => globalThis.marked), true);
});

test('who may not submit or pause is told which role it takes, and nothing happens', needed, async () => {
  const page = await open(`#token=${mint('bob', { roles: [] })}`);
  await page.locator('[data-state=live]').waitFor();
  await page.getByRole('link', { name: 'Queue', exact: true }).first().click();
  await page.getByRole('button', { name: 'Pause …' }).click();
  await page.getByRole('button', { name: 'Pause the queue' }).click();
  await page.getByRole('alert').getByText('needs the role admin').waitFor();
  assert.deepEqual((await ask(server, admin, 'GET', '/api/v1/queue')).paused, []);
  await page.getByRole('button', { name: 'Submit a test' }).click();
  await page.locator('[name=suite]').fill('unit');
  await page.getByRole('button', { name: 'Submit', exact: true }).click();
  await page.getByRole('alert').getByText('needs the role submit or admin').waitFor();
  await submit('not-bobs', { TESTS: '400', PACE_MS: '300' });
  await page.getByRole('button', { name: 'Cancel not-bobs' }).click();
  await page.getByRole('button', { name: 'Yes, cancel it: not-bobs' }).click();
  await page.getByRole('alert').getByText(/^not-bobs: .* is controlled by its submitter/).waitFor();
});

test('axe finds nothing serious where one signs in', needed, async () => {
  const page = await open('', { context: { bypassCSP: true } });
  await page.getByLabel('Token').waitFor();
  await nothingSerious(page);
  await signIn(page, mint('ann', { secret: 'another secret that is long enough for this, but not the one of the server' }));
  await page.getByText('This token is not taken.').waitFor();
  await nothingSerious(page);
});

test('where tests are for their owners, everybody sees their own ones live, and nothing of others gets to the page', needed, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tidings-channels-'));
  const channels = join(directory, 'channels.toml');
  const joins = { 'test-progress': 'owner', 'stress-test': 'owner', 'job-status': 'owner', 'queue-updates': 'role:admin', 'test-updates': 'role:admin', 'test-history-updates': 'role:admin', 'user-presence': 'role:admin' };
  let rules = readFileSync(new URL('../../channels.toml', import.meta.url), 'utf8');
  for (const [channel, join] of Object.entries(joins)) rules = rules.replace(`[channel.${channel}]\n`, `$&join = "${join}"\n`);
  writeFileSync(channels, rules);
  const strict = await openStage({ settings: believing, flags: ['--channels', channels] });
  try {
    const [ann, bob, eve] = ['ann', 'bob', 'eve'].map((user) => mint(user, { roles: user === 'eve' ? [] : ['submit'] }));
    const send = (token, testId, params, more = {}) => ask(strict.server, token, 'POST', '/api/v1/jobs', { testType: 'command', testId, config: { suite: 'unit', params }, maxAttempts: 1, ...more });
    await send(ann, 'anns-secret', { TESTS: '400', PACE_MS: '300', FAIL: '2' });
    await send(ann, 'anns-secret-waits', {}, { testType: 'unheard-of', config: {} });
    await send(ann, 'anns-secret-failed', { TESTS: '1', PACE_MS: '20', FAIL: '2' });
    // She watches her test, so that her connection has a room that tells of it.
    const hers = await strict.open(`#token=${ann}`);
    await hers.getByRole('region', { name: 'Running' }).getByText('anns-secret').waitFor();
    await hers.goto(`${strict.url}/#/tests/anns-secret`);
    await hers.getByRole('region', { name: 'Failures' }).waitFor();

    for (const [who, token] of [['bob', bob], ['eve', eve]]) {
      const page = await strict.open('');
      // Whatever reaches the page, shown or not.
      const came = [];
      page.on('response', (response) => response.text().then((text) => came.push(text), () => undefined));
      page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => came.push(String(payload))));
      await signIn(page, token);
      await page.locator('[data-state=live]').waitFor();
      await page.getByText('You may not follow all tests.').waitFor();
      if (who === 'bob') {
        // It runs for several looks: there is one every few seconds.
        await send(bob, 'bobs-own', { TESTS: '40', PACE_MS: '300' });
        const running = page.getByRole('region', { name: 'Running' }).locator('li', { hasText: 'bobs-own' });
        await running.getByText(/of 40 tests/).waitFor();
        await page.goto(`${strict.url}/#/tests/bobs-own`);
        await page.getByRole('log').getByText('ok 30 - ').waitFor();
        await page.getByRole('region', { name: 'Summary' }).getByText('passed').first().waitFor();
        await page.goto(`${strict.url}/#/`);
        await page.getByRole('region', { name: 'Ended' }).getByText('bobs-own').waitFor();
      } else await page.getByText('Nothing runs at the moment.').waitFor();
      await page.getByText('Nobody waits.').waitFor();
      for (const [view, ready] of [['queue', who === 'bob' ? 'bobs-own' : 'No job was submitted yet.'], ['server', 'Alerts'], ['inbox', 'Nothing is unread.'], ['tests/anns-secre', 'cannot be shown']]) {
        await page.goto(`${strict.url}/#/${view}`);
        await page.getByText(ready).first().waitFor();
      }
      await page.goto(`${strict.url}/#/tests/anns-secret`);
      await page.getByText('This test cannot be shown').waitFor();
      const told = came.filter((text) => text.includes('anns-secret') && !/is not for this caller|forbidden/.test(text));
      assert.deepEqual(told, []);
      assert.deepEqual(page.troubles, []);
    }
  } finally {
    await strict.stop();
    rmSync(directory, { recursive: true });
  }
});
