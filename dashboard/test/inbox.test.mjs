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

test('who has no name is asked for it, where a name is needed', async () => {
  const page = await open('#/inbox');
  await page.getByLabel('Name').fill(name('new'));
  await page.getByRole('button', { name: 'Show my inbox' }).click();
  await page.getByText('Nothing is unread.').waitFor();
});

