// What the page computes: times, rates, quantiles, and series that stay small.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createServer } from 'vite';

const vite = await createServer({ root: fileURLToPath(new URL('..', import.meta.url)), server: { middlewareMode: true, ws: false }, appType: 'custom', logLevel: 'error', optimizeDeps: { noDiscovery: true } });
after(() => vite.close());
const { span, took, left, count, measure, facts, quoted } = await vite.ssrLoadModule('/src/lib/format.ts');
const { Look, rate, quantile, mean } = await vite.ssrLoadModule('/src/lib/prometheus.ts');
const { Series } = await vite.ssrLoadModule('/src/lib/series.ts');

const plain = (text) => text.replaceAll('\u202f', ' ');

test('times are told as people tell them', () => {
  assert.deepEqual([0, 4_400, 59_600, 200_000, 1_800_000, 7_500_000, 200_000_000].map(span).map(plain), ['0 s', '4 s', '1 min 00 s', '3 min 20 s', '30 min', '2 h 05 min', '2 d 7 h']);
  assert.equal(plain(took(1_540)), '1.5 s');
  assert.equal(plain(left(60_000, 180_000)), '60 s – 3 min left');
  assert.equal(plain(left(120_000, 180_000)), '2 – 3 min left');
  assert.equal(plain(left(-5_000, 10_000)), '0 – 10 s left');
  assert.equal(plain(left(30_000, 30_200)), '30 s left');
  assert.equal(left(-5, -1), 'any moment now');
});

test('numbers have the digits that matter', () => {
  assert.deepEqual([0, 0.123, 5.678, 42.4, 12_345, 1_234_567].map(measure), ['0', '0.12', '5.7', '42', '12,345', '1.2M']);
  assert.equal(count(99_999), '99,999');
  assert.equal(facts('a', false, undefined, '', 0, 'b'), 'a · b');
  assert.equal(quoted('no `a` and no `b`, but ` alone'), 'no “a” and no “b”, but ` alone');
});

const at = (seconds, text) => new Look(text, seconds * 1000);
const buckets = (...counts) => counts.map((n, i) => `h_bucket{le="${[1, 2, '+Inf'][i]}"} ${n}`).join('\n') + `\nh_sum 30\nh_count ${counts.at(-1)}`;

test('counters become rates, and one that began anew is no rate below zero', () => {
  const before = at(0, 'n{a="x"} 10\nn{a="y"} 5\n# a comment\n');
  const now = at(2, 'n{a="x"} 16\nn{a="y"} 5');
  assert.equal(rate(now, before, 'n'), 3);
  assert.equal(rate(now, before, 'n', { a: 'y' }), 0);
  assert.equal(rate(at(2, 'n{a="x"} 4'), before, 'n'), 2);
  assert.equal(rate(now, undefined, 'n'), undefined);
  assert.equal(rate(now, before, 'none'), undefined);
});

test('quantiles are of what happened since, not of all time', () => {
  const before = at(0, buckets(100, 100, 100));
  const now = at(1, buckets(100, 110, 110));
  assert.equal(quantile(0.5, now, before, 'h'), 1.5);
  assert.equal(quantile(0.5, now, now, 'h'), undefined);
  assert.equal(quantile(0.99, at(1, buckets(0, 0, 5)), undefined, 'h'), 2, 'what lies beyond the last bound is told as that bound');
  assert.equal(mean(at(1, 'h_sum 30\nh_count 10'), at(0, 'h_sum 10\nh_count 5'), 'h'), 4);
});

test('a series of a day stays small, keeps its ends, and its lists as long as its times', () => {
  const series = new Series();
  for (let s = 0; s < 86_400; s++) series.add(s * 1000, { a: s, ...(s > 50_000 && { late: 1 }) });
  assert.ok(series.times.length <= 1_200 && series.times.length > 500, `${series.times.length} points`);
  assert.equal(series.latest('a'), 86_399);
  assert.equal(series.of('a').length, series.times.length);
  assert.equal(series.of('late').length, series.times.length);
  assert.equal(series.of('none').length, series.times.length);
  assert.ok(series.times.every((time, i) => i === 0 || time > series.times[i - 1]), 'times rise');
  series.since(80_000_000);
  assert.ok(series.times[0] >= 80_000);
});
