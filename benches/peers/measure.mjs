// One measurement: a fresh server, a load, its result.
import { spawn } from 'node:child_process';
import { Agent, request } from 'node:http';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { launch, startServer } from './servers.mjs';

const BENCH_MS = 20 * 60_000;
const SETTLE_MS = 10_000;
const STILL_MS = 500;
const SAMPLE_MS = 50;
const PER_REQUEST = 500;
// Benchmarks that look at nothing but time.
const noPid = new Set(['queue']);

/** Measures `side` with everything fresh, a Redis if it needs one too; resolves to the figures. */
export async function measure(side, { programs }) {
  const redis = side.redis ? await startRedis() : undefined;
  try {
    const context = { programs, redisUrl: redis?.url };
    return side.run ? await program(side.run, context) : await load(side, context);
  } finally {
    await redis?.stop();
  }
}

/** Runs what needs no server beside itself: `tidings`, or a script that lies here. */
function program([name, ...args], { programs, redisUrl }) {
  const all = [...args.map(String), '--redis', redisUrl];
  if (name === 'tidings') return figures(programs.tidings, all);
  return figures(process.execPath, [fileURLToPath(new URL(name, import.meta.url)), ...all]);
}

/** Loads a fresh server as `side` says; resolves to the figures of the load tool. */
async function load(side, { programs, redisUrl }) {
  const server = await startServer(side.server, { programs, redisUrl });
  try {
    if (side.idleChannels) return await idleChannels(server, side.idleChannels);
    return await bench(server, side.bench(side.connections), programs);
  } catch (error) {
    const said = server.stderr().trim();
    throw new Error(said ? `${error.message}; the ${side.server} server said:\n${said}` : error.message);
  } finally {
    await server.stop();
  }
}

async function bench(server, args, programs) {
  const all = ['bench', ...args.map(String), '--server', server.url, '--json'];
  return figures(programs.tidings, server.pid && !noPid.has(args[0]) ? [...all, '--pid', String(server.pid)] : all);
}

/** The last line that `program` prints, which is JSON. */
async function figures(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: BENCH_MS });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const [code, signal] = await once(child, 'close');
  process.off('exit', kill);
  // It ends with 1 when something was lost, and still tells its figures.
  const line = stdout.trim().split('\n').at(-1);
  if (!line?.startsWith('{')) {
    throw new Error(`${program} ${args.join(' ')} ended with ${signal ?? code}: ${stderr.trim() || 'no word of why'}`);
  }
  return { ...JSON.parse(line), sound: code === 0 };
}

/** Publishes one message to each of `channels`, and sees what the server's memory became. */
async function idleChannels(server, channels) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const publish = async (names) => {
    const messages = names.map((channel) => ({ event: 'custom:idle', channel, data: { text: 'x'.repeat(60) } }));
    const { results } = await post(agent, `${server.url}/api/v1/events`, messages);
    const refused = results.filter(({ id }) => id === undefined);
    if (refused.length > 0) throw new Error(`${refused.length} messages were refused: ${JSON.stringify(refused[0])}`);
  };
  // What the first requests cost is not the channels'.
  for (let i = 0; i < 20; i += 1) await publish(Array(PER_REQUEST).fill('test-progress-warm'));
  const before = await settled(server.pid);
  let peak = before;
  for (let at = 0; at < channels; at += PER_REQUEST) {
    const length = Math.min(PER_REQUEST, channels - at);
    await publish(Array.from({ length }, (_, i) => `test-progress-idle-${at + i}`));
    peak = Math.max(peak, rssKb(server.pid));
  }
  const after = await settled(server.pid);
  agent.destroy();
  return { benchmark: 'idle-channels', channels, server_rss_kb: { before, after, peak }, sound: true };
}

/** The server's memory in kB once it has not changed for a while: what was only passing through is gone. */
async function settled(pid) {
  const deadline = Date.now() + SETTLE_MS;
  let [last, since] = [rssKb(pid), Date.now()];
  while (Date.now() < deadline && Date.now() - since < STILL_MS) {
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    const now = rssKb(pid);
    if (now !== last) [last, since] = [now, Date.now()];
  }
  return last;
}

function rssKb(pid) {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}

async function post(agent, url, body) {
  const sent = request(url, { method: 'POST', agent, headers: { 'content-type': 'application/json' } });
  sent.end(JSON.stringify(body));
  const [response] = await once(sent, 'response');
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  if (response.statusCode !== 200) throw new Error(`publishing was answered with ${response.statusCode}: ${text}`);
  return JSON.parse(text);
}

/** A Redis of its own that keeps nothing: `{ url, stop() }`. */
export async function startRedis() {
  const port = await freePort();
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
  const ready = (line) => /Ready to accept connections/.test(line) && `redis://127.0.0.1:${port}`;
  return launch('redis-server', 'redis-server', args, ready);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
