// Starts a real redis-server on a free port, with nothing on disk that outlives the test.
import { directory, freePort, startDaemon } from './daemon.mjs';

/** Resolves to a running Redis: `{ url, pid, output(), stop() }`. */
export async function startRedis() {
  const [dir, port] = [await directory('redis'), await freePort()];
  const settings = { port, bind: '127.0.0.1', dir, save: '', appendonly: 'no', daemonize: 'no' };
  const argv = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const daemon = await startDaemon(['redis-server', ...argv], { dir, port });
  return { ...daemon, url: `redis://127.0.0.1:${port}` };
}
