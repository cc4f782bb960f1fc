// Signing in: the page shows nothing without a token that the server takes, and goes on with a new one.
import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { ask, believing, mint, withAuthentication } from '../../tests/interop/token.mjs';
import { openStage } from './stage.mjs';

const stage = await withAuthentication(() => openStage({ settings: believing }));
const needed = { skip: !stage && 'this server has no authentication' };
const { server } = stage ?? {};
const admin = mint('root');
const submit = (testId, params) => ask(server, admin, 'POST', '/api/v1/jobs', { testType: 'command', testId, config: { suite: 'unit', params }, maxAttempts: 1 });
const pages = [];

after(() => stage?.stop());
afterEach(async () => {
  for (const page of pages.splice(0)) {
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  }
});
async function open(path) {
  const page = await stage.open(path);
  pages.push(page);
  page.setDefaultTimeout(20_000);
  return page;
}
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
