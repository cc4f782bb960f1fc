// Daemons of others (proxies, Redis): started in a directory of their own, without privileges, ended by process id.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20_000;
const STOP_MS = 5_000;
const OUTPUT_CHARS = 20_000;
// Where tests run as root, daemons run as nobody: a configuration that needs more would fail for everybody else.
const NOBODY = process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};

// Daemons are not in everybody's path.
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const lastResorts = new Set();
process.once('exit', () => lastResorts.forEach((end) => end()));

/** Has `end` called if this process ends before what it started. The answer takes that back. */
export function atExit(end) {
  lastResorts.add(end);
  return () => lastResorts.delete(end);
}

/** A directory that daemons may write to. */
export async function directory(name) {
  const path = await mkdtemp(join(tmpdir(), `tidings-${name}-`));
  if (NOBODY.uid !== undefined) await chown(path, NOBODY.uid, NOBODY.gid);
  return path;
}

/** A port that nobody has, as far as can be known. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves once `condition` holds; rejects with what `what()` says if it does not in time. */
export async function eventually(what, condition, withinMs = START_MS) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const met = await condition();
    if (met) return met;
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${typeof what === 'function' ? await what() : what}`);
    await pause(20);
  }
}

/**
 * Starts `argv` in `dir` and waits until it takes connections on `port`. The answer's `stop()` ends it and all of
 * its children, and removes the directory.
 */
export async function startDaemon(argv, { dir, port, signal = 'SIGTERM' }) {
  // A group of its own, because nginx' workers outlive a master that is killed.
  const child = spawn(argv[0], argv.slice(1), { cwd: dir, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'], ...NOBODY });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (output = (output + text).slice(-OUTPUT_CHARS)));
  }
  let failure;
  child.once('error', (error) => (failure = error.message));
  child.once('exit', (code, by) => (failure ??= `ended with ${by ?? code}`));
  const ended = once(child, 'close').catch(() => undefined);
  const running = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;
  const killAll = () => {
    if (running()) process.kill(-child.pid, 'SIGKILL');
  };
  const forget = atExit(killAll);

  const stop = async () => {
    if (running()) {
      child.kill(signal);
      const hard = setTimeout(killAll, STOP_MS);
      await ended;
      clearTimeout(hard);
    }
    forget();
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await eventually(`${argv[0]} does not listen`, async () => {
      if (failure) throw new Error(`${argv[0]}: ${failure}`);
      return takesConnections(port);
    });
    return { pid: child.pid, output: () => output, stop };
  } catch (error) {
    await stop();
    throw new Error(`${error.message}; it said:\n${output || '(nothing)'}`);
  }
}

function takesConnections(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
