#!/usr/bin/env node
// What BullMQ does with jobs that do nothing, as somebody sets it up for speed: one process, jobs added in bulk, a
// worker beside them, ended jobs removed beyond a bound like ours. Two measurements of one Redis:
//
//   throughput  N jobs are added while the worker runs; the time until the last one has ended
//   start       one job after the other: from its `add` to the first line of its handler
//
//   bullmq.mjs --redis URL [--jobs N] [--concurrency C] [--single N]      prints one line of JSON
import { parseArgs } from 'node:util';
import { Queue, Worker } from 'bullmq';

const BULK = 500;
const KEPT = 10_000;

const { values } = parseArgs({
  options: {
    redis: { type: 'string' },
    jobs: { type: 'string', default: '20000' },
    concurrency: { type: 'string', default: '256' },
    single: { type: 'string', default: '200' },
  },
});
if (!values.redis) {
  console.error('bullmq.mjs: --redis URL is missing');
  process.exit(2);
}
const [jobs, concurrency, single] = [values.jobs, values.concurrency, values.single].map(Number);
const { hostname: host, port } = new URL(values.redis);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };

const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: KEPT, removeOnFail: KEPT } });
let begun = () => {};
let ended = () => {};
const worker = new Worker('bench', async (job) => begun(job), { connection, concurrency });
worker.on('completed', (job) => ended(job));
worker.on('error', (error) => {
  console.error(`bullmq: ${error.message}`);
  process.exit(1);
});
await worker.waitUntilReady();

/** The time of each of `count` jobs from its addition to its start, in µs. */
async function starts(count) {
  const times = [];
  for (let i = 0; i < count; i += 1) {
    const started = new Promise((resolve) => (begun = () => resolve(process.hrtime.bigint())));
    const done = new Promise((resolve) => (ended = resolve));
    const added = process.hrtime.bigint();
    await queue.add('noop', {});
    times.push(Number((await started) - added) / 1e3);
    await done;
  }
  return times.sort((a, b) => a - b);
}

/** How many jobs a second are added and done. */
async function throughput(count) {
  let left = count;
  const all = new Promise((resolve) => {
    begun = () => {};
    ended = () => {
      left -= 1;
      if (left === 0) resolve();
    };
  });
  const from = process.hrtime.bigint();
  for (let at = 0; at < count; at += BULK) {
    await queue.addBulk(Array.from({ length: Math.min(BULK, count - at) }, () => ({ name: 'noop', data: {} })));
  }
  await all;
  return (count * 1e9) / Number(process.hrtime.bigint() - from);
}

// The first jobs find a cold program.
await throughput(Math.min(jobs, BULK));
const times = await starts(single);
const at = (quantile) => Math.round(times[Math.min(times.length - 1, Math.floor(quantile * times.length))]);
const perSecond = await throughput(jobs);
console.log(
  JSON.stringify({
    benchmark: 'jobs',
    jobs,
    jobs_per_second: Math.round(perSecond),
    start_us: { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: Math.round(times.at(-1)) },
  }),
);
await worker.close();
await queue.close();
