// The proxies of docs/deploy, as they stand there: only addresses, ports, paths and sizes are exchanged, and what
// only root may do is left out. Before servers of the test, with the way in which each drains one of them.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { directory, eventually, freePort, startDaemon } from './daemon.mjs';

const DEPLOY = new URL('../../docs/deploy/', import.meta.url);
/** The state of a server in HAProxy's runtime API. */
const UP = '2';
/** The ports of the three servers in docs/deploy. */
const PORTS = [8081, 8082, 8083];

export const configuration = (file) => readFile(new URL(file, DEPLOY), 'utf8');

/** Exchanges what occurs; what does not occur is a mistake, in the test or in the file. */
export function exchange(text, pairs) {
  for (const [from, to] of pairs) {
    const changed = text.replaceAll(from, to);
    assert.notEqual(changed, text, `${from} is not in the configuration`);
    text = changed;
  }
  return text;
}

const toServers = (urls) => urls.map((url, i) => [`127.0.0.1:${PORTS[i]}`, new URL(url).host]);

/** nginx before the servers at `urls` (three); `changes` are further pairs of texts. */
async function startNginx(urls, changes = []) {
  const [dir, port] = [await directory('nginx'), await freePort()];
  const file = join(dir, 'nginx.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`);
  let text = exchange(await configuration('nginx.conf'), [
    ['user www-data;', ''],
    ['/run/nginx.pid', `${dir}/nginx.pid`],
    ['/var/log/nginx/', `${dir}/`],
    ['worker_processes auto', 'worker_processes 2'],
    ['worker_rlimit_nofile 131072;', ''],
    ['worker_connections 65536', 'worker_connections 2000'],
    ['listen 80 ', `listen 127.0.0.1:${port} `],
    // Where they are otherwise is compiled in, and only root may write there.
    ['http {\n', `http {\n${temporary.join('\n')}\n`],
    ...toServers(urls),
    ...changes,
  ]);
  const set = async (changed) => {
    text = changed;
    await writeFile(file, text);
  };
  await set(text);
  const daemon = await startDaemon(['nginx', '-e', 'stderr', '-c', file, '-g', 'daemon off;'], { dir, port });
  const address = (i) => `server ${new URL(urls[i]).host}`;
  const reload = async (changed) => {
    const old = await workers(daemon.pid);
    await set(changed);
    process.kill(daemon.pid, 'SIGHUP');
    const renewed = (now) => now.length > 0 && now.every((pid) => !old.includes(pid));
    await eventually('nginx does not take its new configuration', async () => renewed(await workers(daemon.pid)));
  };
  return {
    ...daemon,
    url: `http://127.0.0.1:${port}`,
    stderr: () => daemon.output().slice(-2000),
    /** What was logged until now; nginx writes it when its logs are opened again. */
    accessLog: async () => {
      process.kill(daemon.pid, 'SIGUSR1');
      return readFile(join(dir, 'tidings.log'), 'utf8');
    },
    drain: (i) => reload(exchange(text, [[address(i), `${address(i)} down`]])),
    restore: (i) => reload(exchange(text, [[`${address(i)} down`, address(i)]])),
  };
}

/** The workers of an nginx that accept connections: those that are shutting down say so in their title. */
async function workers(master) {
  const children = (await readFile(`/proc/${master}/task/${master}/children`, 'utf8')).trim().split(' ');
  const titles = children.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  const accepts = (await Promise.all(titles)).map((title) => /^nginx: worker process\W*$/.test(title));
  return children.filter((_, i) => accepts[i]);
}

/** HAProxy before the servers at `urls` (three); `changes` are further pairs of texts. */
async function startHaproxy(urls, changes = []) {
  const [dir, port] = [await directory('haproxy'), await freePort()];
  const [file, admin] = [join(dir, 'haproxy.cfg'), join(dir, 'admin.sock')];
  const text = exchange(await configuration('haproxy.cfg'), [
    ['    chroot /var/lib/haproxy\n', ''],
    ['    user haproxy\n', ''],
    ['    group haproxy\n', ''],
    ['log /dev/log local0', 'log stdout format raw local0'],
    ['/run/haproxy/admin.sock', admin],
    ['maxconn 60000', 'maxconn 2000'],
    ['bind :80 ', `bind 127.0.0.1:${port} `],
    ...toServers(urls),
    ...changes,
  ]);
  await writeFile(file, text);
  const daemon = await startDaemon(['haproxy', '-db', '-f', file], { dir, port, signal: 'SIGTERM' });
  const run = (command) => ask(admin, command);
  const set = async (i, state) => assert.equal((await run(`set server tidings/node${i + 1} state ${state}`)).trim(), '');
  return {
    ...daemon,
    url: `http://127.0.0.1:${port}`,
    stderr: () => daemon.output().slice(-2000),
    accessLog: daemon.output,
    /** Whether HAProxy takes each server for ready. */
    states: async () => {
      const lines = (await run('show servers state tidings')).trim().split('\n').slice(2);
      return lines.map((line) => line.split(' ')[5] === UP);
    },
    drain: (i) => set(i, 'drain'),
    restore: (i) => set(i, 'ready'),
  };
}

/** A command of HAProxy's runtime API. */
async function ask(path, command) {
  const socket = connect(path).setEncoding('utf8');
  let answer = '';
  socket.on('data', (text) => (answer += text));
  socket.end(`${command}\n`);
  await once(socket, 'close');
  return answer;
}

export const PROXIES = { nginx: startNginx, HAProxy: startHaproxy };
