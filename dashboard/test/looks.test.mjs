// What all views have in common: every width, light and dark, keyboards and screen readers; and how the page is served.
import assert from 'node:assert/strict';
import { get } from 'node:http';
import { after, test } from 'node:test';
import { nothingSerious } from './axe.mjs';
import { openStage } from './stage.mjs';

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
    await nothingSerious(page);
    for (const form of view === 'queue' ? ['Submit a test', 'Pause …'] : []) {
      await page.getByRole('button', { name: form }).click();
      await nothingSerious(page);
    }
    await page.context().close();
  });

  test(`${view}: nothing sticks out, from a phone to a wall`, async () => {
    const page = await open(view, { viewport: { width: 375, height: 700 } });
    const fits = async (what) => {
      for (const width of [375, 768, 1100, 1600, 2560]) {
        await page.setViewportSize({ width, height: 700 });
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide <= room, `${what}: ${wide} px in ${room} at ${width}`);
      }
    };
    await fits(view);
    for (const form of view === 'queue' ? ['Submit a test', 'Pause …'] : []) {
      await page.getByRole('button', { name: form }).click();
      await fits(form);
    }
    assert.deepEqual(page.troubles, []);
    await page.context().close();
  });
}

for (const view of Object.keys(VIEWS)) {
  test(`${view}: the keyboard alone gets everywhere, and it is seen where it is`, async () => {
    const page = await open(view);
    if (view === 'queue') await page.getByRole('button', { name: 'Pause …' }).click();
    // What can be done there now; what comes or goes meanwhile is none of it.
    const many = await page.evaluate(() => {
      document.body.tabIndex = -1;
      document.body.focus();
      const wanted = 'a[href], button:not(:disabled), input, select, textarea, summary, [tabindex="0"]';
      globalThis.places = [...document.querySelectorAll(wanted)].filter((element) => element.checkVisibility());
      globalThis.unseen = new Set();
      globalThis.reached = new Set();
      return globalThis.places.length;
    });
    assert.ok(many > 5, `${many} places`);
    for (let i = 0; i < many * 2 + 20; i++) {
      await page.keyboard.press('Tab');
      await page.evaluate(() => {
        const { activeElement } = document;
        if (!activeElement || activeElement === document.body) return;
        const { outlineStyle, outlineWidth } = getComputedStyle(activeElement);
        globalThis.reached.add(activeElement);
        if (outlineStyle === 'none' || parseFloat(outlineWidth) < 1) globalThis.unseen.add(activeElement);
      });
    }
    const [left, unseen] = await page.evaluate(() => {
      const said = (elements) => elements.filter((element) => element.isConnected).map((element) => element.outerHTML.slice(0, 120));
      return [said(globalThis.places.filter((element) => !globalThis.reached.has(element))), said([...globalThis.unseen])];
    });
    assert.deepEqual(left, [], 'the keyboard does not get there');
    assert.deepEqual(unseen, [], 'nothing shows that they have the focus');
    await page.context().close();
  });

  test(`${view}: nothing moves for those who want that`, async () => {
    const moving = (page) =>
      page.evaluate(() => {
        const moves = (style) => style.animationName !== 'none' || style.transitionDuration.split(',').some((time) => parseFloat(time) > 0);
        const still = [...document.querySelectorAll('*')].filter((element) => moves(getComputedStyle(element)));
        return still.map((element) => element.outerHTML.slice(0, 80)).concat(document.getAnimations().map(String));
      });
    const page = await open(view, { reducedMotion: 'reduce' });
    assert.deepEqual(await moving(page), []);
    await page.emulateMedia({ reducedMotion: 'no-preference' });
    if (view === 'queue') assert.notDeepEqual(await moving(page), [], 'this test sees no movement');
    await page.context().close();
  });
}

test('every address leads where it says: at once, loaded again, and back', async () => {
  const page = await open('now');
  for (const view of ['queue', 'test', 'server', 'inbox']) {
    await page.goto(`${server.url}/${VIEWS[view]}`);
    await page.getByText(READY[view]).first().waitFor();
    await page.reload();
    await page.getByText(READY[view]).first().waitFor();
    const current = page.getByRole('navigation', { name: 'Views' }).locator('[aria-current=page]');
    if (view !== 'test') assert.match((await current.innerText()).toLowerCase(), new RegExp(`^${view}`));
  }
  for (const view of ['server', 'test', 'queue', 'now']) {
    await page.goBack();
    await page.getByText(READY[view]).first().waitFor();
  }
  await page.goto(`${server.url}/#/no/such/view`);
  await page.getByRole('region', { name: 'Running' }).waitFor();
  for (const [address, heading] of [['#/tests/a%3Ab.c-d_e', 'a:b.c-d_e'], ['#/tests/%E0%A4%A', '%E0%A4%A']]) {
    await page.goto(`${server.url}/${address}`);
    await page.getByRole('heading', { name: heading }).waitFor();
  }
  assert.deepEqual(page.troubles, []);
  await page.context().close();
});

test('the keyboard alone submits a test, cancels it, and reads what came, without losing its place', async () => {
  const page = await open('queue');
  const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim());
  const type = (text) => page.keyboard.type(text);
  await page.getByRole('button', { name: 'Submit a test' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.name === 'suite');
  await type('unit');
  await page.keyboard.press('Tab');
  await type('TESTS=400 PACE_MS=300');
  await page.keyboard.press('Tab');
  await type('by-keyboard');
  await page.keyboard.press('Enter');
  await page.getByRole('status').getByRole('link', { name: 'by-keyboard' }).waitFor();
  const row = page.getByRole('region', { name: 'Jobs' }).getByRole('row', { name: 'by-keyboard' });
  await row.getByText('running').waitFor();
  await page.getByRole('button', { name: 'Cancel by-keyboard' }).focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.textContent === 'Yes, cancel it');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.textContent === 'Cancel');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.textContent === 'Yes, cancel it');
  await page.keyboard.press('Enter');
  await row.getByText('cancelled').waitFor();
  assert.notEqual(await page.evaluate(() => document.activeElement.tagName), 'BODY');

  for (const title of ['One', 'Two']) await server.post('/api/v1/users/ann/messages', { title });
  await page.goto(`${server.url}/#/inbox`);
  await page.getByRole('button', { name: 'Mark as read: Two' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('region', { name: 'Read just now' }).getByText('Two').waitFor();
  await page.waitForFunction(() => document.activeElement.getAttribute('aria-label') === 'Mark as read: One');
  assert.equal(await focused(), 'Mark as read: One');
  await page.context().close();
});

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
