#!/usr/bin/env node
// Takes the pictures of README.md and docs/ from a live server: dashboard/screenshots.mjs [DIRECTORY]
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as pause } from 'node:timers/promises';
import { openStage } from './test/stage.mjs';

const directory = process.argv[2] ?? fileURLToPath(new URL('../docs/page', import.meta.url));
mkdirSync(directory, { recursive: true });

const stage = await openStage({ settings: { TIDINGS_WORKERS__CONCURRENCY: '8', TIDINGS_LIMITS__CONNECTIONS_PER_USER: '20' } });
const { server, submit, stress } = stage;
try {
  // A past, so that nothing is empty.
  await Promise.all([
    submit('unit-1841', 'unit', { TESTS: '12', PACE_MS: '20' }),
    submit('unit-1842', 'unit', { TESTS: '12', PACE_MS: '20', FAIL: '2,5' }),
    stress('smoke-home', { durationMs: 1500 }),
    submit('checkout-977', 'checkout', { TESTS: '6', PACE_MS: '20' }),
  ]);
  await pause(2500);
  for (const [title, body, rest] of [
    ['Load test passed', 'stress-home kept its thresholds: p99 7 ms at 120 requests per second.', {}],
    ['Nightly regression failed', '2 of 12 tests failed. They passed in the four runs before.', { testId: 'unit-1842' }],
    ['Maintenance on Sunday', 'The workers are restarted at 22:00. Running tests are retried.', {}],
  ])
    await server.post('/api/v1/users/ann/messages', { title, body, ...rest });
  await server.post('/api/v1/broadcast', { level: 'warning', message: 'Two of five load generators are down for maintenance' });
  await server.post('/api/v1/broadcast', { level: 'info', message: 'The staging database was reset' });

  const shots = [
    ['now', '#/', 1440, 900],
    ['test', '#/tests/stress-home', 1440, 900],
    ['suite', '#/tests/nightly-regression', 1440, 900],
    ['queue', '#/queue', 1440, 900],
    ['server', '#/server', 1440, 900],
    ['inbox', '#/inbox', 1440, 900],
    ['now-dark', '#/', 1440, 900, 'dark'],
    ['test-dark', '#/tests/stress-home', 1440, 900, 'dark'],
    ['now-phone', '#/', 375, 812],
    ['queue-phone', '#/queue', 375, 812],
    ['test-phone', '#/tests/nightly-regression', 375, 812],
    ['now-wide', '#/', 2560, 1200],
  ].filter(([name]) => !process.env.ONLY || process.env.ONLY.split(',').includes(name));
  const pages = await Promise.all(
    shots.map(async ([name, path, width, height, colorScheme = 'light']) => {
      const context = { viewport: { width, height }, colorScheme, deviceScaleFactor: process.env.SCALE ? Number(process.env.SCALE) : 1 };
      return [name, await stage.open(path, { context, storage: { 'tidings.user': 'ann' } })];
    }),
  );
  // When all browsers are up and at rest, so that they do not show in the latencies.
  await Promise.all(pages.map(([, page]) => page.locator('[data-state=live]').waitFor()));
  await pause(5_000);
  await stress('stress-home', { rate: 120, durationMs: 60_000 });
  await submit('nightly-regression', 'nightly', { TESTS: '400', PACE_MS: '150', FAIL: '3,7,9' });
  await submit('checkout-978', 'checkout', { TESTS: '40', PACE_MS: '700' });
  await submit('unit-1843', 'unit', { TESTS: '40', PACE_MS: '700', FAIL: '' });
  await submit('unit-1844', 'unit', { TESTS: '12' }, { delayMs: 3_600_000 });
  for (const n of [979, 980]) await server.post('/api/v1/jobs', { testType: 'browser', testId: `browser-${n}`, config: {} });
  await pause(20_000);
  for (const [name, page] of pages) {
    await page.screenshot({ path: `${directory}/${name}.png` });
    if (page.troubles.length) console.log(name, page.troubles);
    console.log(`${directory}/${name}.png`);
  }
} finally {
  await stage.stop();
}
