// What all views have in common: every width, light and dark, keyboards and screen readers; and how the page is served.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { get } from 'node:http';
import { after, test } from 'node:test';
import { openStage } from './stage.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const stage = await openStage();
const { server, submit } = stage;
after(() => stage.stop());

await submit('running', 'unit', { TESTS: '400', PACE_MS: '300', FAIL: '2' });
await submit('passed', 'unit', { TESTS: '1', PACE_MS: '20' });
await submit('a-name-that-is-so-long-that-it-cannot-be-shown-as-a-whole-on-a-phone-and-has-to-be-cut.or.wrapped', 'unit', { TESTS: '6', PACE_MS: '20', FAIL: '2,5' });
await server.post('/api/v1/jobs', { testType: 'unheard-of', testId: 'waiting', config: {} });
await server.post('/api/v1/users/ann/messages', { title: 'A title', body: 'A body' });
await server.post('/api/v1/broadcast', { level: 'warning', message: 'An alert' });

const VIEWS = { now: '#/', queue: '#/queue', test: '#/tests/running', server: '#/server', inbox: '#/inbox' };
const READY = { now: 'Running', queue: 'Submit a test', test: 'Failures', server: 'Delivered per second', inbox: 'A title' };
const ANN = { 'tidings.user': 'ann' };
const open = async (view, context) => {
  const page = await stage.open(VIEWS[view], { context, storage: ANN });
  await page.locator('[data-state=live]').waitFor();
  await page.getByText(READY[view]).first().waitFor();
  return page;
};

for (const view of Object.keys(VIEWS)) {
  test(`${view}: axe finds nothing serious, in light and in dark`, async () => {
    const page = await open(view, { bypassCSP: true });
    if (view === 'queue') await page.getByRole('button', { name: 'Submit a test' }).click();
    await page.evaluate(AXE);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
      const found = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, any }) => `${html} ${any[0]?.message ?? ''}`).join('\n    ')}`);
      assert.deepEqual(found, [], colorScheme);
    }
    await page.context().close();
  });

  test(`${view}: nothing sticks out, from a phone to a wall`, async () => {
    const page = await open(view, { viewport: { width: 375, height: 700 } });
    for (const width of [375, 768, 1100, 1600, 2560]) {
      await page.setViewportSize({ width, height: 700 });
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room, `${wide} px in ${room} at ${width}`);
    }
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });
}

test('the keyboard alone reaches a test and comes back', async () => {
  const page = await open('now');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'To the content');
  await page.keyboard.press('Enter');
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(() => document.activeElement.getAttribute('href') === '#/tests/running')) break;
  }
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'running' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  assert.match(await page.title(), /^running/);
  await page.goBack();
  await page.getByRole('region', { name: 'Running' }).waitFor();
  await page.context().close();
});

test('the files of the page are small, kept by their hash, and known again', async () => {
  const ask = (path, headers = {}) =>
    new Promise((resolve, reject) => {
      get(server.url + path, { headers }, (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk)).on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }));
      }).on('error', reject);
    });
  const page = await ask('/');
  assert.equal(page.headers['cache-control'], 'no-cache');
  assert.match(page.headers['content-security-policy'], /script-src 'self';/);
  assert.equal((await ask('/', { 'if-none-match': page.headers.etag })).status, 304);
  const [, script] = /src="\.\/(assets\/[^"]+\.js)"/.exec(String(page.body));
  const plain = await ask(`/${script}`);
  const packed = await ask(`/${script}`, { 'accept-encoding': 'gzip, br' });
  assert.equal(packed.headers['content-encoding'], 'br');
  assert.match(packed.headers['cache-control'], /immutable/);
  assert.ok(packed.body.length < 80_000 && packed.body.length < plain.body.length / 2, `${packed.body.length} bytes`);
  assert.notEqual(packed.headers.etag, plain.headers.etag);
  assert.equal((await ask('/assets/none.js')).status, 404);
});
