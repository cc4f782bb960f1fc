// Starts the servers that are compared, each on a free port and in a directory of its own, and ends them by
// their process ids. Whatever ends this process ends them too.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const START_MS = 20_000;
const STOP_MS = 10_000;
const STDERR_CHARS = 20_000;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NODE_SERVER = fileURLToPath(new URL('node/server.mjs', import.meta.url));

/** Where the programs are; a run may name others. */
export const PROGRAMS = {
  tidings: process.env.TIDINGS_BIN ?? join(ROOT, 'target/debug/tidings'),
  floor: process.env.TIDINGS_FLOOR ?? join(ROOT, 'target/debug/examples/floor'),
};

// As it is delivered; only that more connections are let in than the largest workload has.
const TIDINGS_CONFIG = '[limits]\nconnections = 20000\n';

/**
 * Starts `kind`: 'tidings', 'node' (Socket.IO in memory), either of them over the Redis at `redisUrl`
 * ('tidings-redis', 'redis'), or 'floor'. Resolves to `{ kind, url, pid, stderr(), stop() }`.
 */
export function startServer(kind, { programs = PROGRAMS, redisUrl } = {}) {
  const serve = ['serve', '--listen', '127.0.0.1:0', '--config', 'tidings.toml'];
  switch (kind) {
    case 'tidings':
      return launch(kind, programs.tidings, serve);
    case 'tidings-redis':
      return launch(kind, programs.tidings, [...serve, '--redis', redisUrl]);
    case 'node':
      return launch(kind, process.execPath, [NODE_SERVER]);
    case 'redis':
      return launch(kind, process.execPath, [NODE_SERVER, '--redis', redisUrl]);
    case 'floor':
      return launch(kind, programs.floor, []);
    default:
      throw new Error(`there is no server called ${kind}`);
  }
}

/**
 * Runs `program` in a new directory until `ready(line)` makes an address of a line that it printed. Resolves to
 * `{ kind, url, pid, stderr(), stop() }`.
 */
export async function launch(kind, program, args, ready = address) {
  const dir = mkdtempSync(join(tmpdir(), 'tidings-peers-'));
  writeFileSync(join(dir, 'tidings.toml'), TIDINGS_CONFIG);
  // What the developer has set for their own server must not reach this one.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('TIDINGS_')));
  const child = spawn(program, args, { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr = (stderr + text).slice(-STDERR_CHARS)));
  const ended = once(child, 'close').catch(() => undefined);
  const clear = () => {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  };
  process.once('exit', clear);

  const stop = async () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      const hard = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await ended;
      clearTimeout(hard);
    }
    process.off('exit', clear);
    clear();
  };
  try {
    const url = await listening(child, ready, program);
    return { kind, url, pid: child.pid, stderr: () => stderr, stop };
  } catch (error) {
    await stop();
    throw new Error(`${error.message}; its standard error was:\n${stderr || '(nothing)'}`);
  }
}

/** tidings says it in words, the others as JSON. */
function address(line) {
  const url = /^listening on (http:\/\/127\.0\.0\.1:\d+)$/.exec(line)?.[1];
  const port = /^\{"port": ?(\d+)\}$/.exec(line)?.[1];
  return url ?? (port && `http://127.0.0.1:${port}`);
}

function listening(child, ready, program) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${program} did not listen within ${START_MS} ms`)), START_MS);
    const fail = (message) => {
      clearTimeout(timer);
      reject(new Error(message));
    };
    child.once('error', (error) => fail(`${program} could not be started: ${error.message}`));
    child.once('exit', (code, signal) => fail(`${program} ended with ${signal ?? code} before it listened`));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const url = ready(line);
      if (!url) return;
      clearTimeout(timer);
      resolve(url);
    });
  });
}
