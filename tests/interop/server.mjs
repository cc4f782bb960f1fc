// Starts the real program on a free port, with a directory of its own, and ends it by its process id.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { atExit } from './daemon.mjs';

const START_MS = 20_000;
// Longer than a server takes whose readiness is being asked for: it is in no hurry then.
const STOP_MS = 25_000;
const STDERR_CHARS = 20_000;
/** What the developer has set for their own server must not reach one of ours. */
export const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('TIDINGS_')));
export const BIN = process.env.TIDINGS_BIN ?? fileURLToPath(new URL('../../target/debug/tidings', import.meta.url));
const SUITE = fileURLToPath(new URL('suite.mjs', import.meta.url));

const config = `
[suites.passing]
command = ${JSON.stringify([process.execPath, SUITE])}
env = { OUTCOME = "pass" }
timeout = "30s"

[suites.failing]
command = ${JSON.stringify([process.execPath, SUITE])}
env = { OUTCOME = "fail" }
timeout = "30s"
`;

/**
 * Resolves to a running server: `{ url, dir, post(path, body), stderr(), kill(), restart(), stop() }`. `port` is where it
 * listens, `flags` are further ones of `tidings serve`, `settings` variables of its environment, `suites` more of
 * `tidings.toml`. `restart` kills it without a warning and starts it again on the same port and data.
 */
export async function startServer({ port = 0, flags = [], settings = {}, suites = '' } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'tidings-interop-'));
  await writeFile(join(dir, 'tidings.toml'), config + suites);
  let stderr = '';
  let running;

  const start = async (at) => {
    const args = ['serve', '--listen', `127.0.0.1:${at}`, '--data-dir', join(dir, 'data')];
    const child = spawn(BIN, [...args, '--config', join(dir, 'tidings.toml'), ...flags], {
      cwd: dir,
      env: { ...env, ...settings },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr = (stderr + text).slice(-STDERR_CHARS)));
    const ended = once(child, 'close').catch(() => undefined);
    running = { child, ended, forget: atExit(() => child.kill('SIGKILL')) };
    return listening(child);
  };
  const kill = async () => {
    running.child.kill('SIGKILL');
    await running.ended;
    running.forget();
  };
  /** The exit code of a server that ended by itself, null for one that had to be killed. */
  const stop = async () => {
    const { child, ended, forget } = running;
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      const hard = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await ended;
      clearTimeout(hard);
    }
    forget();
    await rm(dir, { recursive: true, force: true });
    return child.exitCode;
  };
  try {
    const url = await start(port);
    const restart = async () => {
      await kill();
      await start(new URL(url).port);
    };
    return { url, dir, post: (path, body) => post(url, path, body), stderr: () => stderr, kill, restart, stop };
  } catch (error) {
    await stop();
    throw new Error(`${error.message}; its standard error was:\n${stderr || '(nothing)'}`);
  }
}

/** The address that the server prints once it listens. */
function listening(child) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${BIN} did not listen within ${START_MS} ms`)), START_MS);
    const fail = (message) => {
      clearTimeout(timer);
      reject(new Error(message));
    };
    child.once('error', (error) => fail(`${BIN} could not be started: ${error.message}`));
    child.once('exit', (code, signal) => fail(`${BIN} ended with ${signal ?? code} before it listened`));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const url = /^listening on (http:\/\/127\.0\.0\.1:\d+)$/.exec(line)?.[1];
      if (url) {
        clearTimeout(timer);
        resolve(url);
      }
    });
  });
}

async function post(url, path, body) {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`POST ${path} was answered with ${response.status}: ${text}`);
  return { status: response.status, ...JSON.parse(text) };
}
