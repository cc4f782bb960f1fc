// The page in a real browser, on the real program, with real jobs.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { eventually } from '../../tests/interop/daemon.mjs';
import { live, name, openStage, row, visitor } from './stage.mjs';

const stage = await openStage({ settings: { TIDINGS_WORKERS__CONCURRENCY: '3' } });
const { server, submit, stress } = stage;
const open = visitor(stage);
const ANN = { storage: { 'tidings.user': 'ann' } };
after(() => stage.stop());

/** Runs a test outside, as any program would: `{ report(...events), end(outcome, rest) }`. */
async function external(testId, series) {
  const path = `/api/v1/tests/${testId}`;
  const { attempt, lease } = await server.post('/api/v1/tests', { testId, name: series, total: 4 });
  const tell = (what, body) => server.post(`${path}/${what}`, { attempt, lease, ...body });
  return {
    report: (...events) => tell('reports', { events }),
    progress: (progress, current) => tell('reports', { events: [{ event: 'progress', data: { progress, completed: progress / 25, total: 4, current: [current] } }] }),
    end: (outcome, rest = {}) => tell('end', { outcome, ...rest }),
  };
}
/** Runs of a series that take `ms` and pass, all at once. */
const runs = (series, n, ms) =>
  Promise.all(
    Array.from({ length: n }, async () => {
      const run = await external(name('run'), series);
      await pause(ms);
      await run.end('passed');
    }),
  );
/** One that is alive and makes no progress: it takes half a minute to be noticed, so it begins here and is looked at below. */
const hanging = (async () => {
  const testId = name('hanging');
  await runs('imports', 3, 50);
  const run = await external(testId, 'imports');
  await run.progress(50, 'reads the file');
  let trouble;
  const alive = setInterval(() => run.report().catch((error) => (trouble = error)), 2_000);
  return { testId, run, stop: () => clearInterval(alive), trouble: () => trouble };
})();
const snapshot = async (testId) => (await fetch(`${server.url}/api/v1/tests/${testId}`)).json();
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

test('a test with a past shows when it will end, and that it is slower than usual once it is', async () => {
  const testId = name('slow');
  const series = name('series');
  const before = await external(name('first'), series);
  const page = await open('#/');
  await live(page);
  await before.progress(25, 'one');
  await before.end('passed');
  await runs(series, 5, 3_000);
  const run = await external(testId, series);
  await run.progress(25, 'one of four');
  const here = row(page, 'Running', testId);
  await here.getByText(/(\d+\s–\s)?\d+\ss left/).waitFor();
  const { etaMs, slower } = await snapshot(testId);
  // How much of it has passed by now is the machine's matter.
  assert.ok(etaMs.low >= 0 && etaMs.low < 3_000 && etaMs.high >= etaMs.low && etaMs.high > 0 && etaMs.high < 8_000, JSON.stringify(etaMs));
  assert.equal(slower, undefined);
  assert.equal(await here.getByText('slower than usual').count(), 0);
  await eventually('it is not slower', async () => {
    await run.progress(50, 'two of four');
    return (await snapshot(testId)).slower;
  });
  await here.getByText('slower than usual').waitFor();
  await page.goto(`${server.url}/#/tests/${testId}`);
  const summary = page.getByRole('region', { name: 'Summary' });
  await summary.getByText('slower than usual').waitFor();
  // Half way after all of what it usually takes: the range follows what it does now.
  await summary.getByText(/s left/).waitFor();
  await run.end('passed');
  await summary.locator('.state', { hasText: 'passed' }).waitFor();
  await eventually(async () => `it is: ${await summary.innerText()}`, async () => (await summary.getByText(/slower|left/).count()) === 0);
});

test('a failure that comes and goes is marked, with how often; one that is new is not', async () => {
  const series = name('series');
  const failures = [{ name: 'sorts', message: 'expected 1, found 2' }];
  for (const outcome of ['passed', 'failed', 'passed', 'failed', 'passed']) {
    const run = await external(name('run'), series);
    await run.end(outcome, outcome === 'failed' ? { failures } : {});
  }
  const testId = name('flaky');
  const page = await open(`#/tests/${testId}`);
  await live(page);
  const run = await external(testId, series);
  await run.progress(25, 'sorts');
  await run.end('failed', { failures: [...failures, { name: 'adds up', message: 'expected 3, found 4' }], results: { counts: { passed: 2, failed: 2, skipped: 0 } } });
  const item = (text) => page.getByRole('region', { name: 'Failures' }).getByRole('listitem').filter({ hasText: text });
  const mark = item('sorts').getByText('flaky');
  await mark.waitFor();
  assert.equal(await mark.getAttribute('title'), 'It failed in 2 of the last 5 runs');
  await item('adds up').waitFor();
  assert.equal(await item('adds up').getByText('flaky').count(), 0);
  await page.getByRole('region', { name: 'Summary' }).getByText('2 of the last 5 runs failed').waitFor();
});

test('a test that is alive and makes no progress is shown to hang, until it goes on', async () => {
  const { testId, run, stop, trouble } = await hanging;
  const [now, one] = [await open('#/'), await open(`#/tests/${testId}`)];
  const places = [row(now, 'Running', testId), one.getByRole('region', { name: 'Summary' })];
  await Promise.all(places.map((place) => place.getByText(/no progress for \d+\ss|no progress for \d+\smin/).waitFor({ timeout: 45_000 })));
  await run.progress(75, 'goes on');
  await Promise.all(places.map((place) => place.getByText('no progress for').waitFor({ state: 'detached' })));
  stop();
  assert.equal(trouble(), undefined);
  await run.end('passed');
  await row(now, 'Ended', testId).waitFor();
});

test('the server is killed and comes back under the open pages: their state is right again, and nobody loaded them', async () => {
  const [ends, waits] = [name('ends'), name('waits')];
  const user = name('user');
  const [now, one, queue, health, inbox] = [
    await open('#/'),
    await open(`#/tests/${ends}`),
    await open('#/queue'),
    await open('#/server'),
    await open('#/inbox', { storage: { 'tidings.user': user } }),
  ];
  const all = [now, one, queue, health, inbox];
  await Promise.all(all.map(live));
  await submit(ends, 'unit', { TESTS: '40', PACE_MS: '150' }, { maxAttempts: 3 });
  await row(now, 'Running', ends).getByText(/[2-9] of 40 tests/).waitFor();
  await Promise.all(all.map(mark));
  await server.kill();
  await Promise.all(all.map((page) => page.locator('[data-state=offline]').getByText('since').waitFor()));
  await server.restart();
  // Some of it happens before the pages are back.
  await server.post('/api/v1/jobs', { testType: 'unheard-of', testId: waits, config: {} });
  await server.post('/api/v1/broadcast', { level: 'warning', message: `${ends} alert` });
  await server.post(`/api/v1/users/${user}/messages`, { title: 'It is back' });
  await Promise.all(all.map(live));
  await row(now, 'Waiting', waits).waitFor();
  await queue.getByRole('row', { name: waits }).getByText('no worker handles').waitFor();
  await health.getByRole('region', { name: 'Alerts' }).getByText(`${ends} alert`).waitFor();
  await health.getByText('this page').waitFor();
  await inbox.getByRole('region', { name: 'Unread' }).getByText('It is back').waitFor();
  await eventually('the test was not taken up again', async () => {
    const response = await fetch(`${server.url}/api/v1/tests/${ends}`);
    return (await response.json()).attempt === 2;
  }, 40_000);
  await one.getByRole('region', { name: 'Summary' }).getByText('attempt 2').waitFor();
  await row(now, 'Running', ends).getByText('attempt 2').waitFor();
  await one.getByRole('region', { name: 'Attempts' }).getByText('running').waitFor();
  assert.deepEqual(await Promise.all(all.map(isMarked)), all.map(() => true));
  await queue.getByRole('row', { name: ends }).getByText('2 of 3').waitFor();
  const { jobId } = await snapshot(ends);
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
