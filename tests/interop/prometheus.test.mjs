// A real Prometheus scrapes a real server under load: every panel shows something, every alert can be evaluated, and
// the names of metrics are the same in the code, the documentation, the dashboards and the rules.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from './client.mjs';
import { eventually } from './daemon.mjs';
import { alerts, dashboards, expressions, metricNames, read } from './grafana.mjs';
import { SCRAPE_S, startPrometheus } from './prometheus.mjs';
import { startServer } from './server.mjs';

const RULE_NAMES = new Map(alerts(await read('grafana/prometheus/tidings.rules.yml')).map(({ name, expr }) => [name, expr]));
// Long enough for two scrapes on a busy machine.
const RATE = '10s';

const server = await startServer();
const prometheus = await startPrometheus([new URL(server.url).host]).catch(async (error) => {
  await server.stop();
  throw error;
});
const clients = [];
const began = Date.now() / 1000;
after(async () => {
  for (const client of clients) client.close();
  await prometheus.stop();
  await server.stop();
});

const connect = async (auth) => {
  const client = new Client(server, { transports: ['websocket'], auth });
  clients.push(client);
  await client.connected();
  return client;
};
const submit = (suite, testId, rest) =>
  server.post('/api/v1/jobs', { testType: 'command', config: { suite }, testId, maxAttempts: 1, ...rest });
const job = async (jobId) => (await fetch(`${server.url}/api/v1/jobs/${jobId}`)).json();
const ended = (jobId, state) => eventually(`${jobId} is ${state}`, async () => (await job(jobId)).state === state);

/** A little of everything that the dashboards show. */
async function load() {
  const room = 'test-progress-watched';
  const watcher = await connect();
  await watcher.join(room);
  const start = await watcher.join('team-updates-1');
  await connect({ userId: 'ann' });

  const progress = (n) => ({ event: 'test:progress', channel: room, data: { testId: 'watched', attempt: 1, progress: n } });
  await server.post('/api/v1/events', Array.from({ length: 50 }, (_, n) => progress(n)));
  const update = { event: 'team:update', channel: 'team-updates-1', data: {} };
  await server.post('/api/v1/events', [update, { ...update, priority: 1 }, { ...update, priority: 3 }, { ...update, priority: 4 }]);
  await watcher.message('team-updates-1', (m) => m.priority === 4);

  const back = await connect();
  assert.equal((await back.join('team-updates-1', { since: { epoch: start.epoch, offset: start.offset } })).replayed, 4);
  assert.equal((await back.join('team-updates-1', { since: { epoch: 'gone', offset: 0 } })).recovered, false);
  assert.equal((await watcher.emit('room:join', 'no-such-room')).ok, false);
  await assert.rejects(server.post('/api/v1/events', { event: 'team:update', channel: 'nowhere', data: {} }));
  await server.post('/api/v1/users/ann/messages', { title: 'hello', body: 'there' });

  const passed = await submit('passing', 'passed');
  const failed = await submit('failing', 'failed');
  const later = await submit('passing', 'later', { delayMs: 60_000 });
  const retried = await submit('missing', 'retried', { maxAttempts: 2 }).catch(() => undefined);
  await ended(passed.jobId, 'completed');
  await ended(failed.jobId, 'failed');
  await server.post(`/api/v1/jobs/${later.jobId}/cancel`, {});
  if (retried) await ended(retried.jobId, 'failed');
}

/** What Grafana makes of an expression before it asks. */
const filled = (expr) => expr.replaceAll('$__rate_interval', RATE).replaceAll(/\$(job|node|namespace)\b/g, '.+');

/** What an expression was at any moment since the load began. */
async function values(expr) {
  const range = { start: began, end: Date.now() / 1000, step: SCRAPE_S };
  const { result } = await prometheus.get('query_range', { query: filled(expr), ...range });
  return result.flatMap((series) => series.values.map(([, value]) => Number(value)));
}

async function exposition() {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));
  return { text, types, histograms: new Set([...types].filter(([, type]) => type === 'histogram').map(([name]) => name)) };
}

describe('metrics', { timeout: 120_000 }, () => {
  test('the exposition is well-formed and follows the conventions', async () => {
    const { text, types } = await exposition();
    const promtool = spawn('promtool', ['check', 'metrics'], { stdio: ['pipe', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [promtool.stdout, promtool.stderr]) stream.on('data', (chunk) => (said += chunk));
    promtool.stdin.end(text);
    const [code] = await once(promtool, 'close');
    assert.deepEqual([code, said], [0, '']);
    for (const name of types.keys()) assert.match(text, new RegExp(`^# HELP ${name} \\S`, 'm'));
  });

  test('every metric exists before anything happens, and no label names anything that is without bound', async () => {
    const { text, types } = await exposition();
    const allowed = new Set(['le', 'namespace', 'priority', 'outcome', 'reason', 'state', 'route', 'method', 'status', 'version']);
    for (const name of types.keys()) assert.match(text, new RegExp(`^${name}(_count)?(\\{[^}]*\\})? `, 'm'), name);
    const labels = [...text.matchAll(/[{,](\w+)="/g)].map(([, label]) => label);
    for (const label of new Set(labels)) assert.ok(allowed.has(label), label);
  });

  test('names are the same in code, documentation, dashboards and rules: none missing, none dead', async () => {
    const { types, histograms } = await exposition();
    const exposed = [...types.keys()].sort();
    const documented = [...(await read('docs/observability.md')).matchAll(/^\| `((?:tidings|process)_[a-z_]+)/gm)].map(([, name]) => name);
    assert.deepEqual(documented.sort(), exposed);
    const all = [...(await dashboards()).values()].flatMap(expressions).map(({ expr }) => expr).concat([...RULE_NAMES.values()]);
    const used = new Set(all.flatMap((expr) => metricNames(expr, histograms)));
    for (const name of used) assert.ok(types.has(name), `${name} is asked for, but does not exist`);
    const looked = exposed.filter((name) => name.startsWith('tidings_') && !used.has(name));
    assert.deepEqual(looked, [], 'nobody looks at these');
  });
});

describe('what Prometheus makes of it', { timeout: 120_000 }, () => {
  test('every panel shows something after a load', async () => {
    // Rates need a look before what they measure.
    await eventually('the first scrapes', async () => (await values('min(count_over_time(tidings_broker_up[1m]))')).some((n) => n >= 2));
    await load();
    await pause(SCRAPE_S * 2000);
    const empty = [];
    for (const { kind, where, expr } of [...(await dashboards()).values()].flatMap(expressions)) {
      if (kind === 'variable') {
        const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(expr);
        const found = await prometheus.get(`label/${label}/values`, { 'match[]': filled(selector) });
        assert.ok(found.length, where);
        continue;
      }
      const shown = (await values(expr)).filter(Number.isFinite);
      // Nothing has to be on fire here.
      if (!shown.length && !expr.startsWith('ALERTS')) empty.push(`${where}: ${expr}`);
    }
    assert.deepEqual(empty, []);
  });

  test('every alert is evaluated, and stands on series that exist', async () => {
    const { groups } = await prometheus.get('rules');
    const rules = groups.flatMap(({ rules }) => rules);
    assert.deepEqual(rules.map(({ name }) => name), [...RULE_NAMES.keys()]);
    const missing = [];
    for (const { name, query, health, lastError, state } of rules) {
      assert.equal(health, 'ok', `${name}: ${lastError}`);
      assert.notEqual(state, 'firing', name);
      // A comparison that answers 0 or 1 in place of leaving out shows whether there is something to compare.
      const both = query.replaceAll(/ (==|>|<) /g, ' $1 bool ');
      assert.notEqual(both, query, name);
      if (!(await values(both)).length) missing.push(`${name}: ${query}`);
    }
    assert.deepEqual(missing, []);
  });

  test('a node that is killed is told of by the alert', async () => {
    const down = async () => (await prometheus.get('alerts')).alerts.find(({ labels }) => labels.alertname === 'TidingsDown');
    assert.equal(await down(), undefined);
    await server.kill();
    const pending = await eventually('TidingsDown waits for its minute', down);
    assert.equal(pending.labels.severity, 'critical');
    assert.equal(pending.annotations.runbook, 'docs/runbook.md#tidingsdown');
  });
});
