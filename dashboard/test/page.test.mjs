// The page in a real browser, on the real program, with real jobs.
import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { eventually } from '../../tests/interop/daemon.mjs';
import { openStage } from './stage.mjs';

const stage = await openStage({ settings: { TIDINGS_WORKERS__CONCURRENCY: '3' } });
const { server, submit, stress } = stage;
const pages = [];
let count = 0;
const name = (what) => `${what}-${process.pid}-${++count}`;
const ANN = { storage: { 'tidings.user': 'ann' } };

after(() => stage.stop());
afterEach(async () => {
  for (const page of pages.splice(0)) {
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  }
});
async function open(path, options) {
  const page = await stage.open(path, options);
  pages.push(page);
  page.setDefaultTimeout(20_000);
  return page;
}
const live = (page) => page.locator('[data-state=live]').waitFor();
const row = (page, section, testId) => page.getByRole('region', { name: section }).locator('li', { hasText: testId });
/** Notes that the page was not loaded again since. */
const mark = (page) => page.evaluate(() => void (globalThis.marked = true));
const isMarked = (page) => page.evaluate(() => globalThis.marked === true);

test('a suite is submitted on the page, runs before its eyes, and ends', async () => {
  const testId = name('submitted');
  const page = await open('#/queue');
  await page.getByRole('button', { name: 'Submit a test' }).click();
  await page.locator('[name=suite]').fill('unit');
  await page.getByLabel('Parameters').fill('TESTS=12 PACE_MS=150 FAIL=2');
  await page.getByLabel('Test', { exact: true }).fill(testId);
  await page.getByLabel('Attempts').fill('1');
  await page.getByRole('button', { name: 'Submit', exact: true }).click();
  await page.getByRole('status').getByRole('link', { name: testId }).waitFor();
  await page.getByRole('link', { name: 'Now' }).click();
  const running = row(page, 'Running', testId);
  await running.getByText('1 failed').waitFor();
  await running.getByText(/of 12 tests/).waitFor();
  await running.getByText('expected status 200, got 503').waitFor();
  await row(page, 'Ended', testId).getByText('1 of 12 tests failed').waitFor();
  await running.waitFor({ state: 'detached' });
});

test('what cannot be submitted is refused with its reason', async () => {
  const page = await open('#/queue');
  await page.getByRole('button', { name: 'Submit a test' }).click();
  await page.locator('[name=suite]').fill('no-such-suite');
  await page.getByRole('button', { name: 'Submit', exact: true }).click();
  await page.getByRole('alert').getByText('no-such-suite').waitFor();
});

test('a test shows its failures with their output, its log and its attempts, and can be run again', async () => {
  const testId = name('failing');
  await submit(testId, 'unit', { TESTS: '40', PACE_MS: '150', FAIL: '2,5' });
  const page = await open(`#/tests/${testId}`);
  await page.getByRole('heading', { name: testId }).waitFor();
  const failures = page.getByRole('region', { name: 'Failures' });
  await failures.getByText('test/invoice.test.js:14:12').waitFor();
  const log = page.getByRole('log');
  await log.getByText('ok 3 - login').waitFor();
  // It follows, until it is paused.
  await page.getByRole('button', { name: 'Pause' }).click();
  const paused = await log.locator('div').count();
  await page.getByRole('button', { name: /^Follow \(\d+ new\)/ }).waitFor();
  assert.equal(await log.locator('div').count(), paused);
  await page.getByRole('button', { name: /^Follow/ }).click();
  await log.getByText('ok 40 - ').waitFor();
  await page.getByText('2 of 40 tests failed').waitFor();
  const summary = page.getByRole('region', { name: 'Summary' });
  await summary.getByText('failed', { exact: true }).first().waitFor();
  assert.match(await summary.innerText(), /passed\s+38\s+failed\s+2\s+skipped\s+0\s+of\s+40/);
  assert.ok((await page.locator('figure canvas').count()) >= 2, 'charts of progress and outcomes');
  await page.getByRole('button', { name: `Run again: ${testId}` }).click();
  await summary.getByText('running').waitFor();
  await summary.getByText('attempt 2').waitFor();
});

test('a test that waits again is shown waiting, where nobody is free to run it', async () => {
  const testId = name('again');
  const busy = Array.from({ length: 4 }, () => name('busy'));
  await submit(testId, 'unit', { TESTS: '1', PACE_MS: '20' });
  const page = await open(`#/tests/${testId}`);
  const summary = page.getByRole('region', { name: 'Summary' });
  await summary.getByText('passed').first().waitFor();
  const jobs = await Promise.all(busy.map((id) => submit(id, 'unit', { TESTS: '400', PACE_MS: '300' })));
  await eventually('not everybody is busy', async () => {
    const { jobs } = await (await fetch(`${server.url}/api/v1/jobs?state=running`)).json();
    return jobs.filter((job) => busy.includes(job.testId)).length === 3;
  });
  await page.getByRole('button', { name: `Run again: ${testId}` }).click();
  await summary.getByText('queued').waitFor();
  for (const { jobId } of jobs) await server.post(`/api/v1/jobs/${jobId}/cancel`, {});
  await summary.getByText('passed').first().waitFor();
});

test('a running test is cancelled, after being asked', async () => {
  const testId = name('cancelled');
  await submit(testId, 'unit', { TESTS: '400', PACE_MS: '150' });
  const page = await open(`#/tests/${testId}`);
  await page.getByRole('region', { name: 'Summary' }).getByText('running').waitFor();
  await page.getByRole('button', { name: `Cancel ${testId}` }).click();
  await page.getByRole('button', { name: 'No' }).click();
  await page.getByRole('button', { name: `Cancel ${testId}` }).click();
  await page.getByRole('button', { name: `Yes, cancel it: ${testId}` }).click();
  await page.getByRole('region', { name: 'Summary' }).getByText('cancelled').waitFor();
});

test('the queue is paused and goes on, and what waits changes places', async () => {
  const [testId, other] = [name('held'), name('held')];
  const [page, second] = [await open('#/queue'), await open('#/queue', ANN)];
  await page.getByRole('button', { name: 'Pause', exact: true }).click();
  const paused = (page) => page.getByRole('region', { name: 'Paused' });
  await Promise.all([page, second].map((page) => paused(page).getByText('The queue is paused').waitFor()));
  assert.equal(await page.getByRole('button', { name: 'Pause', exact: true }).count(), 0);
  await submit(testId, 'unit', { TESTS: '1', PACE_MS: '20' });
  await submit(other, 'unit', { TESTS: '1', PACE_MS: '20' });
  const jobs = page.getByRole('region', { name: 'Jobs' });
  await jobs.getByRole('row', { name: other }).getByText('paused since').waitFor();
  await page.getByLabel(`Priority of ${other}`).selectOption('critical');
  await eventually('its priority stayed', async () => {
    const { jobs } = await (await fetch(`${server.url}/api/v1/jobs?state=queued`)).json();
    return jobs.find((job) => job.testId === other)?.priority === 4;
  });
  // The other page is told, and lets them go.
  await eventually('the other page shows another priority', async () => (await second.getByLabel(`Priority of ${other}`).inputValue()) === '4');
  await paused(second).getByRole('button', { name: 'Resume' }).click();
  for (const id of [testId, other]) await jobs.getByRole('row', { name: id }).getByText('passed').waitFor();
  await Promise.all([page, second].map((page) => paused(page).waitFor({ state: 'detached' })));
});

test('what failed runs again by itself, as a test of its own', async () => {
  const testId = name('partly');
  await submit(testId, 'unit', { TESTS: '6', PACE_MS: '20', FAIL: '2,5' });
  const page = await open(`#/tests/${testId}`);
  await page.getByText('2 of 6 tests failed').waitFor();
  await page.getByRole('button', { name: `Run what failed: ${testId}` }).click();
  await page.waitForFunction((first) => location.hash.startsWith('#/tests/') && !location.hash.endsWith(first), testId);
  const summary = page.getByRole('region', { name: 'Summary' });
  await summary.getByText('failed', { exact: true }).first().waitFor();
  assert.match(await summary.innerText(), /passed\s+0\s+failed\s+2\s+skipped\s+4/);
});

test('a load test shows its rates and latencies as they are', async () => {
  const testId = name('stress');
  await stress(testId);
  const page = await open(`#/tests/${testId}`);
  for (const title of ['Requests per second', 'Latency', 'Errors']) await page.getByRole('heading', { name: title }).waitFor();
  await page.getByRole('region', { name: 'Results' }).waitFor();
  await page.getByRole('region', { name: 'Summary' }).getByText('passed').first().waitFor();
});

test('the queue is searched and filtered, and the address says how', async () => {
  const testId = name('searched');
  await submit(testId, 'unit', { TESTS: '1', PACE_MS: '20' });
  await server.post('/api/v1/jobs', { testType: 'unheard-of', testId: `${testId}-waits`, config: {} });
  const page = await open('#/queue');
  await page.getByRole('searchbox').fill(testId);
  const jobs = page.getByRole('region', { name: 'Jobs' });
  await jobs.getByRole('row', { name: `${testId}-waits` }).getByText('no worker handles').waitFor();
  await jobs.getByRole('row').nth(2).getByText('passed').waitFor();
  await page.getByRole('link', { name: 'Passed' }).click();
  await jobs.getByText(`${testId}-waits`).waitFor({ state: 'detached' });
  assert.equal(new URL(page.url()).hash, `#/queue?state=completed&search=${testId}`);
  await page.reload();
  await jobs.getByRole('link', { name: testId, exact: true }).waitFor();
  assert.equal(await jobs.getByText(`${testId}-waits`).count(), 0);
});

test('the server shows its rates, its connections and alerts as they come', async () => {
  const page = await open('#/server', ANN);
  await page.getByText('Published per second, by priority').waitFor();
  await page.getByText('this page').waitFor();
  const message = name('alert');
  await server.post('/api/v1/broadcast', { level: 'warning', message });
  await page.getByRole('region', { name: 'Alerts' }).getByText(message).waitFor();
  const again = await open('#/server');
  await again.getByRole('region', { name: 'Alerts' }).getByText(message).waitFor();
});

test('two devices of a user agree on what is unread', async () => {
  const user = name('user');
  const who = { storage: { 'tidings.user': user } };
  const [one, other] = [await open('#/inbox', who), await open('#/', who)];
  await Promise.all([one, other].map(live));
  const unread = (page) => page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: /^Inbox/ });
  for (const title of ['First', 'Second', 'Third']) await server.post(`/api/v1/users/${user}/messages`, { title, body: `${title} of three` });
  await Promise.all([one, other].map((page) => unread(page).getByText(/^3/).waitFor()));
  await one.getByRole('button', { name: 'Mark as read: Second' }).click();
  await Promise.all([one, other].map((page) => unread(page).getByText(/^2/).waitFor()));
  await unread(other).click();
  await other.getByText('Third of three').waitFor();
  assert.equal(await other.getByRole('region', { name: 'Unread' }).getByText('Second of three').count(), 0);
  await other.getByRole('button', { name: 'Mark all as read' }).click();
  await Promise.all([one, other].map((page) => page.getByText('Nothing is unread.').waitFor()));
});

test('who has no name is asked for it, where a name is needed', async () => {
  const page = await open('#/inbox');
  await page.getByLabel('Name').fill(name('new'));
  await page.getByRole('button', { name: 'Show my inbox' }).click();
  await page.getByText('Nothing is unread.').waitFor();
});

test('the server is killed and comes back under the open pages: their state is right again, and nobody loaded them', async () => {
  const [ends, waits] = [name('ends'), name('waits')];
  const [now, one] = [await open('#/'), await open(`#/tests/${ends}`)];
  await Promise.all([now, one].map(live));
  await submit(ends, 'unit', { TESTS: '40', PACE_MS: '150' }, { maxAttempts: 3 });
  await row(now, 'Running', ends).getByText(/[2-9] of 40 tests/).waitFor();
  await Promise.all([now, one].map(mark));
  await server.kill();
  await Promise.all([now, one].map((page) => page.locator('[data-state=offline]').getByText('since').waitFor()));
  await server.restart();
  // Some of it happens before the pages are back.
  await server.post('/api/v1/jobs', { testType: 'unheard-of', testId: waits, config: {} });
  await Promise.all([now, one].map(live));
  await row(now, 'Waiting', waits).waitFor();
  await eventually('the test was not taken up again', async () => {
    const response = await fetch(`${server.url}/api/v1/tests/${ends}`);
    return (await response.json()).attempt === 2;
  }, 40_000);
  await one.getByRole('region', { name: 'Summary' }).getByText('attempt 2').waitFor();
  await row(now, 'Running', ends).getByText('attempt 2').waitFor();
  await one.getByRole('region', { name: 'Attempts' }).getByText('running').waitFor();
  assert.deepEqual(await Promise.all([now, one].map(isMarked)), [true, true]);
  const { jobId } = await (await fetch(`${server.url}/api/v1/tests/${ends}`)).json();
  await server.post(`/api/v1/jobs/${jobId}/cancel`, {});
  await row(now, 'Ended', ends).getByText('cancelled').first().waitFor();
});

test('a test that does not exist yet is shown as soon as it begins', async () => {
  const testId = name('later');
  const page = await open(`#/tests/${testId}`);
  await page.getByText('There is no test of this name.').waitFor();
  const tell = (event, data) => server.post('/api/v1/events', { channel: `test-progress-${testId}`, event, data: { testId, attempt: 1, ...data } });
  await tell('test:started', { testType: 'external', startedAt: Date.now() });
  await tell('test:progress', { progress: 30, metrics: { widgets: 7 }, etaMs: { low: 120_000, high: 180_000 } });
  await page.getByText('30\u202f%').first().waitFor();
  await page.getByText(/2\s–\s3\smin left/).waitFor();
  await tell('test:progress', { progress: 60, metrics: { widgets: 9 } });
  await page.getByRole('heading', { name: 'widgets' }).waitFor();
});
