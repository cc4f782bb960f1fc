#!/usr/bin/env node
// How smoothly the page shows many tests at once, on a live server and in a real browser:
//
//     dashboard/smooth.mjs [--tests 500] [--rate 10] [--seconds 60] [--all]
//
// `--tests` report from outside, `--rate` times a second each; the page shows them with `--all` in one list. Long tasks
// (more than 50 ms in which nothing else can happen) and frames are counted in the page, and its heap is measured after
// each garbage collection. The exit code is 1 where the heap grows, or where long tasks took more than a twentieth.
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openStage } from './test/stage.mjs';

const { values } = parseArgs({
  options: {
    tests: { type: 'string', default: '500' },
    rate: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '60' },
    all: { type: 'boolean', default: false },
  },
});
const [tests, rate, seconds] = [values.tests, values.rate, values.seconds].map(Number);
const HEAP_EVERY_MS = 5_000;
const MAX_GROWTH = 1.15;
const MAX_BLOCKED = 0.05;

const stage = await openStage();
const { server } = stage;
const event = (n, event, data) => ({ channel: `test-progress-smooth-${n}`, event, data: { testId: `smooth-${n}`, attempt: 1, ...data } });
const tell = (messages) => server.post('/api/v1/events', messages);
const all = Array.from({ length: tests }, (_, n) => n);
let told = 0;

async function progress(until) {
  for (let round = 0; Date.now() < until; round++) {
    const next = Date.now() + 1000 / rate;
    const messages = all.map((n) => {
      const done = (round + n) % 1000;
      const counts = { passed: done, failed: n % 50 === 0 ? 1 : 0, skipped: 0, total: 1000 };
      const failures = counts.failed ? [{ name: 'a test', message: 'expected 1, got 2' }] : undefined;
      return event(n, 'test:progress', { progress: done / 10, counts, failures, current: [`case ${done}`], metrics: { rps: done }, etaMs: { low: 1000 * (1000 - done), high: 2000 * (1000 - done) } });
    });
    for (let at = 0; at < messages.length; at += 500) await tell(messages.slice(at, at + 500));
    told += messages.length;
    await pause(Math.max(0, next - Date.now()));
  }
}

try {
  for (let at = 0; at < tests; at += 500) await tell(all.slice(at, at + 500).map((n) => event(n, 'test:started', { testType: 'external', startedAt: Date.now() })));
  const page = await stage.open('#/');
  await page.locator('[data-state=live]').waitFor();
  if (values.all && tests > 100) await page.getByRole('button', { name: /^Show all/ }).click();
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('HeapProfiler.enable');
  await devtools.send('Performance.enable');
  await page.evaluate(() => {
    const seen = (globalThis.seen = { tasks: 0, blocked: 0, longest: 0, frames: 0, since: performance.now() });
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) {
        seen.tasks++;
        seen.blocked += duration;
        seen.longest = Math.max(seen.longest, duration);
      }
    }).observe({ type: 'longtask' });
    const frame = () => (seen.frames++, requestAnimationFrame(frame));
    requestAnimationFrame(frame);
  });
  const until = Date.now() + seconds * 1000;
  const telling = progress(until);
  const heaps = [];
  while (Date.now() < until - HEAP_EVERY_MS) {
    await pause(HEAP_EVERY_MS);
    await devtools.send('HeapProfiler.collectGarbage');
    const { metrics } = await devtools.send('Performance.getMetrics');
    heaps.push(metrics.find(({ name }) => name === 'JSHeapUsedSize').value / 2 ** 20);
  }
  await telling;
  const { tasks, blocked, longest, frames, since } = await page.evaluate(() => ({ ...globalThis.seen, since: performance.now() - globalThis.seen.since }));
  const share = blocked / since;
  // The first measurements are of a page that still fills its lists.
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const third = Math.max(1, Math.floor(heaps.length / 3));
  const growth = mean(heaps.slice(-third)) / mean(heaps.slice(third, 2 * third).length ? heaps.slice(third, 2 * third) : heaps);
  console.log(`${tests} tests, ${(told / (since / 1000)).toFixed(0)} messages a second for ${(since / 1000).toFixed(0)} s`);
  console.log(`frames      ${(frames / (since / 1000)).toFixed(1)} a second`);
  console.log(`long tasks  ${tasks}, ${blocked.toFixed(0)} ms in all (${(share * 100).toFixed(1)} %), the longest ${longest.toFixed(0)} ms`);
  console.log(`heap        ${heaps.map((mib) => mib.toFixed(1)).join(' ')} MiB, the last third ${(growth * 100 - 100).toFixed(1)} % above the one before`);
  if (page.troubles.length) console.log(page.troubles.join('\n'));
  process.exitCode = growth > MAX_GROWTH || share > MAX_BLOCKED || page.troubles.length ? 1 : 0;
} finally {
  await stage.stop();
}
