// Control: the queue is held back and let go, what waits changes places, and what the server does not do is said.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { eventually } from '../../tests/interop/daemon.mjs';
import { live, name, openStage, visitor } from './stage.mjs';

const stage = await openStage({ settings: { TIDINGS_WORKERS__CONCURRENCY: '3' } });
const { server, submit, stress } = stage;
const open = visitor(stage);
const ANN = { storage: { 'tidings.user': 'ann' } };
after(() => stage.stop());

const paused = (page) => page.getByRole('region', { name: 'Paused' });
const jobs = (page) => page.getByRole('region', { name: 'Jobs' });
const job = (page, testId) => jobs(page).getByRole('row', { name: testId });
const get = async (path) => (await fetch(server.url + path)).json();
const state = async (jobId) => (await get(`/api/v1/jobs/${jobId}`)).state;
/** Fills the form that pauses a part of the queue, and sends it. */
async function pausePart(page, part, named, reason = '') {
  await page.getByRole('button', { name: 'Pause …' }).click();
  const form = page.getByRole('form', { name: 'Pause' });
  await form.getByLabel('What').selectOption(part);
  if (named) await form.locator('[name=part]').fill(named);
  await form.getByLabel('Reason').fill(reason);
  await form.getByRole('button', { name: /^Pause / }).click();
  await form.waitFor({ state: 'detached' });
}

test('the queue is paused and goes on, and what waits changes places', async () => {
  const [testId, other] = [name('held'), name('held')];
  const [page, second] = [await open('#/queue'), await open('#/queue', ANN)];
  await pausePart(page, 'all');
  await Promise.all([page, second].map((page) => paused(page).getByText('The queue is paused').waitFor()));
  await submit(testId, 'unit', { TESTS: '1', PACE_MS: '20' });
  await submit(other, 'unit', { TESTS: '1', PACE_MS: '20' });
  await job(page, other).getByText('paused since').waitFor();
  await page.getByLabel(`Priority of ${other}`).selectOption('critical');
  await eventually('its priority stayed', async () => {
    const { jobs } = await get('/api/v1/jobs?state=queued');
    return jobs.find((job) => job.testId === other)?.priority === 4;
  });
  // The other page is told, and lets them go.
  await eventually('the other page shows another priority', async () => (await second.getByLabel(`Priority of ${other}`).inputValue()) === '4');
  await paused(second).getByRole('button', { name: 'Resume' }).click();
  for (const id of [testId, other]) await job(page, id).getByText('passed').waitFor();
  await Promise.all([page, second].map((page) => paused(page).waitFor({ state: 'detached' })));
});

test('a suite and a test type are paused and resumed by themselves, and everybody sees since when, by whom and why', async () => {
  const [held, load, free] = [name('held'), name('load'), name('free')];
  const [page, now] = [await open('#/queue', ANN), await open('#/')];
  await pausePart(page, 'suite', 'checkout', 'its database is moved');
  await pausePart(page, 'testType', 'stress');
  const { paused: known } = await get('/api/v1/queue');
  const parts = { suite: 'The suite checkout is paused', type: 'Jobs of the type stress are paused' };
  const entry = (page, what) => paused(page).getByRole('paragraph').filter({ hasText: what });
  for (const view of [page, now]) {
    const suite = entry(view, parts.suite);
    await suite.getByText(/since \d\d:\d\d:\d\d, for .* · by ann · its database is moved/).waitFor();
    const { since } = known.find((pause) => pause.suite === 'checkout');
    const clock = await view.evaluate((ms) => new Date(ms).toLocaleTimeString('en-GB'), since);
    assert.match(await suite.innerText(), new RegExp(`since ${clock}`));
    await entry(view, parts.type).getByText('by ann').waitFor();
  }
  await submit(held, 'checkout', { TESTS: '1', PACE_MS: '20' });
  await stress(load, { durationMs: 300 });
  await submit(free, 'unit', { TESTS: '1', PACE_MS: '20' });
  // What belongs to no paused part runs past them.
  await job(page, free).getByText('passed').waitFor();
  await job(page, held).getByText('the suite “checkout” has been paused since').waitFor();
  await job(page, load).getByText('has been paused since').waitFor();
  const waiting = now.getByRole('region', { name: 'Waiting' });
  await waiting.getByText('by ann: its database is moved').waitFor();

  await entry(now, parts.suite).getByRole('button', { name: 'Resume' }).click();
  await job(page, held).getByText('passed').waitFor();
  await entry(page, parts.suite).waitFor({ state: 'detached' });
  await job(page, load).getByText('queued').waitFor();
  await entry(page, parts.type).getByRole('button', { name: 'Resume' }).click();
  await job(page, load).getByText('passed').waitFor();
  await Promise.all([page, now].map((page) => paused(page).waitFor({ state: 'detached' })));
});

test('a part that cannot be paused is refused with its reason, and the form stays', async () => {
  const page = await open('#/queue');
  await page.getByRole('button', { name: 'Pause …' }).click();
  const form = page.getByRole('form', { name: 'Pause' });
  await form.getByLabel('What').selectOption('testType');
  await form.locator('[name=part]').fill('no type');
  await form.getByRole('button', { name: 'Pause this type' }).click();
  await form.getByRole('alert').getByText(/type/i).waitFor();
  await page.keyboard.press('Tab');
  await form.getByRole('button', { name: 'Close' }).click();
  await form.waitFor({ state: 'detached' });
  assert.deepEqual((await get('/api/v1/queue')).paused, []);
});

test('a priority that comes too late, and a cancellation, are refused kindly: it is said what happened, until it is read', async () => {
  const [late, over] = [name('late'), name('over')];
  await server.post('/api/v1/queue/pause', { suite: 'nightly' });
  const first = await submit(late, 'nightly', { TESTS: '400', PACE_MS: '300' });
  const page = await open('#/queue');
  // The wish is on its way when the job begins.
  await page.route(`**/jobs/${first.jobId}/priority`, async (route) => {
    await server.post('/api/v1/queue/resume', { suite: 'nightly' });
    await eventually('the job did not begin', async () => (await state(first.jobId)) === 'running');
    await route.continue();
  });
  const refusal = page.getByRole('main').getByRole('alert');
  await page.getByLabel(`Priority of ${late}`).selectOption('critical');
  await refusal.getByText(`${late}: It does not wait any more, so its priority cannot be changed.`).waitFor();
  await job(page, late).getByText('running').waitFor();
  assert.equal((await get(`/api/v1/jobs/${first.jobId}`)).priority, 2);
  assert.equal(await page.getByLabel(`Priority of ${late}`).count(), 0);
  // It does not go with the next look at the list.
  const next = name('next');
  await submit(next, 'unit', { TESTS: '1', PACE_MS: '20' });
  await job(page, next).getByText('passed').waitFor();
  assert.equal(await refusal.count(), 1);

  // Long enough that its button is pressed while it runs.
  const second = await submit(over, 'checkout', { TESTS: '40', PACE_MS: '150' });
  await page.route(`**/jobs/${second.jobId}/cancel`, async (route) => {
    await eventually('the job did not end', async () => (await state(second.jobId)) === 'completed');
    await route.continue();
  });
  await page.getByRole('button', { name: `Cancel ${over}` }).click();
  await page.getByRole('button', { name: `Yes, cancel it: ${over}` }).click();
  await refusal.getByText(`${over}: It has ended already, so there is nothing to cancel.`).waitFor();
  assert.equal(await refusal.count(), 1, 'only the last one is shown');
  await job(page, over).getByText('passed').waitFor();
  await refusal.getByRole('button', { name: 'Close' }).click();
  await refusal.waitFor({ state: 'detached' });
  await server.post(`/api/v1/jobs/${first.jobId}/cancel`, {});
  await job(page, late).getByText('cancelled').waitFor();
});

test('what is done while the server is away is refused in words, and nothing looks as if it was done', async () => {
  const testId = name('waits');
  await server.post('/api/v1/queue/pause', { suite: 'nightly' });
  const { jobId } = await submit(testId, 'nightly', { TESTS: '1', PACE_MS: '20' });
  const page = await open('#/queue');
  const select = page.getByLabel(`Priority of ${testId}`);
  await select.waitFor();
  await server.kill();
  await page.locator('[data-state=offline]').waitFor();
  await select.selectOption('critical');
  const refusal = page.getByRole('main').getByRole('alert').filter({ hasText: testId });
  await refusal.getByText('The server cannot be reached, so nothing was changed').waitFor();
  assert.equal(await select.inputValue(), '2');
  await server.restart();
  await live(page);
  await select.selectOption('high');
  await eventually('its priority stayed', async () => (await get(`/api/v1/jobs/${jobId}`)).priority === 3);
  await refusal.waitFor({ state: 'detached' });
  // The pause outlived the server, and so did the job.
  await paused(page).getByRole('button', { name: 'Resume' }).click();
  await job(page, testId).getByText('passed').waitFor();
});

test('what failed runs again by itself, as a test of its own', async () => {
  const testId = name('partly');
  await submit(testId, 'unit', { TESTS: '6', PACE_MS: '20', FAIL: '2,5' });
  const page = await open(`#/tests/${testId}`);
  await page.getByText('2 of 6 tests failed').waitFor();
  await page.getByRole('button', { name: `Run what failed: ${testId}` }).click();
  await page.waitForFunction((first) => location.hash.startsWith('#/tests/') && !location.hash.endsWith(first), testId);
  const summary = page.getByRole('region', { name: 'Summary' });
  await eventually(async () => `it is: ${await summary.innerText()}`, async () => /failed\n[^]*passed\s+0\s+failed\s+2\s+skipped\s+4/.test(await summary.innerText()));
});

test('a list that could not be had once is asked for again, although nothing is told of it', async () => {
  const page = await open('#/queue');
  await live(page);
  let lost = 0;
  const lose = (times) => (route) => (lost++ < times ? route.abort('connectionrefused') : route.continue());
  // One look at the queue is lost right after its pause was told.
  await page.route('**/api/v1/queue', lose(1));
  await server.post('/api/v1/queue/pause', { reason: 'told once' });
  await paused(page).getByText('told once').waitFor();
  assert.ok(lost > 1);
  await server.post('/api/v1/queue/resume', {});
  await paused(page).waitFor({ state: 'detached' });
  lost = 0;
  await page.route('**/api/v1/jobs?state=cancelled&**', lose(1));
  await jobs(page).getByRole('link', { name: 'Cancelled' }).click();
  await jobs(page).getByText('the server cannot be reached').waitFor();
  await jobs(page).getByText('the server cannot be reached').waitFor({ state: 'detached' });
});
