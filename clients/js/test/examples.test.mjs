// The examples of README.md do what they say, as they are written there: only the address is that of this server.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from 'tidings-client';
import { transformSync } from 'esbuild';
import { eventually } from '../../../tests/interop/daemon.mjs';
import { startServer } from '../../../tests/interop/server.mjs';
import { ask, believing, mint, withAuthentication } from '../../../tests/interop/token.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const code = [...readFileSync(`${root}/README.md`, 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code);
// Within the package, where `tidings-client` is found by its name.
const directory = mkdtempSync(`${root}/test/running-`);
const server = await startServer({
  suites: `[suites.unit]\ncommand = [${JSON.stringify(process.execPath)}, "-e", "console.log('1..1'); console.log('ok 1 - fine')"]\n`,
});
const client = connect(server.url, { userId: 'ann' });
const children = [];
after(async () => {
  for (const child of children) child.kill();
  client.close();
  rmSync(directory, { recursive: true });
  await server.stop();
});

/** Starts the example that holds `text`; what it printed so far. */
function start(text, url = server.url, before = '') {
  const found = code.filter((code) => code.includes(text));
  assert.equal(found.length, 1, `one example with ${text}`);
  const here = found[0].replaceAll(/https?:\/\/(localhost:8080|tests\.example)/g, url);
  assert.notEqual(here, found[0], 'it connects to somewhere');
  const path = `${directory}/${children.length}.mjs`;
  writeFileSync(path, before + transformSync(here, { loader: 'ts', format: 'esm' }).code);
  const child = spawn(process.execPath, [path], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const printed = { text: '' };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (printed.text += text));
  return printed;
}
const prints = (printed, wanted) => eventually(() => `${wanted} is not in:\n${printed.text}`, () => wanted.test(printed.text));

test('a test is followed', async () => {
  const told = start("tidings.join('test-progress-nightly'");
  const room = `${server.url}/api/v1/channels/test-progress-nightly/presence`;
  await eventually('it does not join', async () => (await (await fetch(room)).json()).connections === 1);
  const tell = (event, data) => client.request('POST', '/api/v1/events', { channel: 'test-progress-nightly', event, data: { testId: 'nightly', attempt: 1, ...data } });
  await tell('test:started', { testType: 'external', startedAt: 1 });
  await tell('test:progress', { progress: 50, counts: { passed: 4, failed: 1 } });
  await tell('test:failed', { error: { code: 'tests_failed', message: '1 failed' }, willRetry: false });
  await prints(told, /running 0 % 0 failed\nrunning 50 % 1 failed\nfailed 50 % 1 failed\n/);
});

test('failed jobs of the queue are told', async () => {
  const told = start("connect('http://localhost:8080').join('queue-updates'");
  await eventually('it does not join', async () => (await (await fetch(`${server.url}/api/v1/channels/queue-updates/presence`)).json()).connections === 1);
  const { jobId } = await client.request('POST', '/api/v1/jobs', { testType: 'command', config: { suite: 'failing' }, maxAttempts: 1 });
  await prints(told, new RegExp(`${jobId} 1 of 5 tests failed`));
});

test('how it stands is told', async () => {
  const told = start('tidings.onStatus(');
  await prints(told, /connecting .*\n(catching-up .*\n)?live /);
  await server.restart();
  await prints(told, /live [^]*offline .*[^]*live /);
});

test('a token is fetched and a device named', async (t) => {
  const guarded = await withAuthentication(() => startServer({ settings: believing }));
  if (!guarded) return t.skip('this server has no authentication');
  try {
    // A browser's page has an address, and somebody who gives out tokens.
    const page = `globalThis.fetch = async (path) => { if (path !== '/my/token') throw new Error(path); return new Response(${JSON.stringify(mint('ann'))}); };\n`;
    start("fetch('/my/token')", guarded.url, page);
    await eventually('it is not let in', async () => {
      const { connections } = await ask(guarded, mint('root'), 'GET', '/api/v1/connections');
      return connections.some(({ userId, clientId }) => userId === 'ann' && clientId === 'laptop');
    });
  } finally {
    await guarded.stop();
  }
});

test('it publishes, submits, asks, and sees who is there', async () => {
  const told = start('watchPresence(tidings');
  await prints(told, /\[ 'ann' \]/);
  assert.equal((await client.request('GET', '/api/v1/tests/mine')).progress, 50);
  const { jobs } = await client.request('GET', '/api/v1/jobs');
  assert.ok(jobs.some(({ config }) => config.suite === 'unit'));
});
