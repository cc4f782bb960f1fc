// The real program with its page, and Debian's Chromium that looks at it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { afterEach } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { startServer } from '../../tests/interop/server.mjs';

const SUITE = fileURLToPath(new URL('suite.mjs', import.meta.url));
const CHROMIUM = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
  (path) => path && existsSync(path),
);

const suite = (name, env) => `
[suites.${name}]
command = ${JSON.stringify([process.execPath, SUITE])}
rerun = ${JSON.stringify([process.execPath, SUITE, '{pattern}'])}
env = ${JSON.stringify(env).replace(/":/g, '" =')}
params = { TESTS = ["1", "6", "12", "40", "400"], PACE_MS = ["20", "150", "300", "700"], FAIL = ["", "2", "2,5", "3,7,9"] }
timeout = "10m"
`;

/** `{ server, url, browser, open(path, options), submit(job), stop() }` */
export async function openStage({ settings = {}, ...rest } = {}) {
  if (!CHROMIUM) throw new Error('there is no Chromium: tests/setup installs it, or CHROMIUM says where it is');
  const server = await startServer({
    suites: suite('unit', {}) + suite('checkout', {}) + suite('nightly', {}),
    settings,
    ...rest,
  });
  // Tests run as root in containers, where Chromium has no sandbox.
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: process.getuid() === 0 ? ['--no-sandbox'] : [] });
  const { url } = server;
  const open = async (path = '#/', { context = {}, storage = {}, session = {} } = {}) => {
    const own = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...context });
    await own.addInitScript(
      ([local, tab]) => {
        for (const [key, value] of Object.entries(local)) localStorage.setItem(key, value);
        for (const [key, value] of Object.entries(tab)) sessionStorage.getItem(key) ?? sessionStorage.setItem(key, value);
      },
      [storage, session],
    );
    const page = await own.newPage();
    page.troubles = [];
    page.on('pageerror', (error) => page.troubles.push(String(error)));
    // A lost connection or a refusal is no mistake of the page.
    page.on('console', (message) => {
      const text = message.text();
      if (message.type() === 'error' && !/ERR_(CONNECTION|SOCKET_NOT_CONNECTED|EMPTY_RESPONSE|INTERNET_DISCONNECTED)|WebSocket connection|status of \d+/.test(text)) page.troubles.push(text);
    });
    await page.goto(`${url}/${path}`);
    return page;
  };
  const submit = (testId, suite, params = {}, more = {}) =>
    server.post('/api/v1/jobs', { testType: 'command', testId, config: { suite, params }, maxAttempts: 1, ...more });
  const stress = (testId, config = {}, more = {}) =>
    server.post('/api/v1/jobs', {
      testType: 'stress',
      testId,
      config: { url: `${server.url}/healthz`, rate: 40, durationMs: 4000, ...config },
      maxAttempts: 1,
      ...more,
    });
  const stop = async () => {
    await browser.close();
    // What runs there would get its grace first. It ends with its server in any case.
    await server.kill();
    await server.stop();
  };
  return { server, url, browser, open, submit, stress, stop };
}

/** Opens pages as `stage.open` does; they are closed after each test, which fails where one of them was in trouble. */
export function visitor(stage) {
  const pages = [];
  afterEach(async () => {
    for (const page of pages.splice(0)) {
      assert.deepEqual(page.troubles, []);
      await page.context().close();
    }
  });
  return async (path, options) => {
    const page = await stage.open(path, options);
    pages.push(page);
    page.setDefaultTimeout(20_000);
    return page;
  };
}
export const live = (page) => page.locator('[data-state=live]').waitFor();
export const row = (page, section, testId) => page.getByRole('region', { name: section }).locator('li', { hasText: testId });

let count = 0;
/** A name that no other test has. */
export const name = (what) => `${what}-${process.pid}-${++count}`;
