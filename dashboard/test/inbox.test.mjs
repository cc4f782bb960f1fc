// The inbox on several devices of one user: what is read on one is read on all, at once.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { eventually } from '../../tests/interop/daemon.mjs';
import { live, name, openStage, visitor } from './stage.mjs';

const stage = await openStage();
const { server } = stage;
const open = visitor(stage);
after(() => stage.stop());

const notify = (user, title) => server.post(`/api/v1/users/${user}/messages`, { title, body: `${title} of them` });
const link = (page) => page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: /^Inbox/ });
/** Resolves when all pages count `n`, well before any of them looks at the list by itself. */
const count = (pages, n) => Promise.all(pages.map((page) => page.getByRole('link', { name: n ? `Inbox ${n} unread` : 'Inbox', exact: true }).waitFor()));
const unread = (page) => page.getByRole('region', { name: 'Unread' });

test('what is read on one device is read on the other at once, and both count the same', async () => {
  const user = name('user');
  const who = { storage: { 'tidings.user': user } };
  const [one, other] = [await open('#/inbox', who), await open('#/', who)];
  await Promise.all([one, other].map(live));
  for (const title of ['First', 'Second', 'Third']) await notify(user, title);
  await count([one, other], 3);
  await one.getByRole('button', { name: 'Mark as read: Second' }).click();
  await count([one, other], 2);
  await link(other).click();
  await unread(other).getByText('Third of them').waitFor();
  assert.equal(await unread(other).getByText('Second of them').count(), 0);
  await other.getByRole('button', { name: 'Mark as read: First' }).click();
  await unread(one).getByText('First of them').waitFor({ state: 'detached' });
  await one.getByRole('region', { name: 'Read just now' }).getByText('First of them').waitFor();
  await count([one, other], 1);
  // Somebody who is no page, and a recall.
  await notify(user, 'Fourth');
  await count([one, other], 2);
  const { id } = await notify(user, 'Fifth');
  await count([one, other], 3);
  await server.post(`/api/v1/messages/${id}/recall`, {});
  await count([one, other], 2);
  await other.getByRole('button', { name: 'Mark all as read' }).click();
  await Promise.all([one, other].map((page) => page.getByText('Nothing is unread.').waitFor()));
  await count([one, other], 0);
});

test('more than a page of them is read at once, and counts agree', async () => {
  const user = name('user');
  const who = { storage: { 'tidings.user': user } };
  const [one, other] = [await open('#/inbox', who), await open('#/inbox', who)];
  await Promise.all([one, other].map(live));
  for (let n = 1; n <= 130; n++) await notify(user, `Number ${n}`);
  await count([one, other], 130);
  // The first hundred are loaded, or all of them as they came.
  await one.reload();
  await live(one);
  await count([one, other], 130);
  assert.equal(await unread(one).getByRole('listitem').count(), 100);
  await one.getByRole('button', { name: 'Mark all as read' }).click();
  await count([one, other], 30);
  await eventually('the rest is not shown', async () => (await unread(one).getByRole('listitem').count()) === 30);
  await eventually('the rest is not shown', async () => (await unread(other).getByRole('listitem').count()) === 30);
});

test('a device that was away knows what was read meanwhile as soon as it is back', async () => {
  const user = name('user');
  const who = { storage: { 'tidings.user': user } };
  const [one, away] = [await open('#/inbox', who), await open('#/inbox', who)];
  await Promise.all([one, away].map(live));
  for (const title of ['First', 'Second', 'Third']) await notify(user, title);
  await count([one, away], 3);
  const device = await away.evaluate(() => sessionStorage.getItem('tidings.device'));
  // No way to the server: its connection ends (older browsers keep it, so the server ends it), and no other one begins.
  await away.context().setOffline(true);
  const { connections } = await (await fetch(`${server.url}/api/v1/connections?limit=500`)).json();
  const known = connections.find(({ clientId }) => clientId === device);
  if (known) await fetch(`${server.url}/api/v1/connections/${known.connectionId}`, { method: 'DELETE' });
  await away.locator('[data-state=offline]').waitFor();
  await one.getByRole('button', { name: 'Mark as read: First' }).click();
  await one.getByRole('button', { name: 'Mark as read: Third' }).click();
  await notify(user, 'Fourth');
  await count([one], 2);
  await unread(away).getByText('First of them').waitFor();
  await away.context().setOffline(false);
  await live(away);
  await count([one, away], 2);
  for (const page of [one, away]) {
    await unread(page).getByText('Fourth of them').waitFor();
    assert.deepEqual(await unread(page).getByRole('heading').allInnerTexts(), ['Fourth', 'Second']);
  }
});

test('more of them is asked for twice and comes once, and one that is not shown is recalled', async () => {
  const user = name('user');
  const ids = [];
  for (let n = 1; n <= 130; n++) ids.push((await notify(user, `Number ${n}`)).id);
  const page = await open('#/inbox', { storage: { 'tidings.user': user } });
  await count([page], 130);
  await server.post(`/api/v1/messages/${ids[120]}/recall`, {});
  await count([page], 129);
  const asked = [];
  await page.route('**/messages/unread', async (route) => {
    asked.push(route.request().postDataJSON());
    // Long enough for the second click.
    await new Promise((done) => setTimeout(done, 300));
    await route.continue();
  });
  await unread(page).getByRole('button', { name: 'Show more' }).evaluate((button) => (button.click(), button.click()));
  await unread(page).getByText('Number 130', { exact: true }).waitFor();
  await eventually(`the list does not settle: ${JSON.stringify(asked)}`, async () => asked.length >= 2 && (await unread(page).getByRole('button', { name: 'Show more' }).count()) === 0);
  await notify(user, 'The last');
  await unread(page).getByText('The last', { exact: true }).waitFor();
  const shown = await unread(page).getByRole('heading').allInnerTexts();
  assert.equal(shown.length, 130);
  assert.equal(new Set(shown).size, 130);
});

test('a list of long messages is shown as far as it was, also after it was looked at again', async () => {
  const user = name('user');
  for (let n = 1; n <= 24; n++) await server.post(`/api/v1/users/${user}/messages`, { title: `Number ${n}`, body: 'long '.repeat(12_000) });
  const page = await open('#/inbox', { storage: { 'tidings.user': user } });
  await count([page], 24);
  await eventually('not all of them are shown', async () => (await unread(page).getByRole('listitem').count()) === 24);
});

test('what comes while the list is on its way, again and again, does not count as read', async () => {
  const user = name('user');
  const page = await open('#/inbox', { storage: { 'tidings.user': user } });
  await live(page);
  await page.getByText('Nothing is unread.').waitFor();
  let sent = 0;
  await page.route('**/messages/unread', async (route) => {
    const response = await route.fetch();
    if (sent < 5) {
      await notify(user, `Number ${++sent}`);
      await count([page], sent);
    }
    await route.fulfill({ response });
  });
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await eventually('the list is not looked at', () => sent === 5);
  await unread(page).getByText('Number 5 of them').waitFor();
  await count([page], 5);
  assert.equal(await page.getByRole('region', { name: 'Read just now' }).count(), 0);
});

test('who has no name is asked for it, where a name is needed', async () => {
  const page = await open('#/inbox');
  await page.getByLabel('Name').fill(name('new'));
  await page.getByRole('button', { name: 'Show my inbox' }).click();
  await page.getByText('Nothing is unread.').waitFor();
});

