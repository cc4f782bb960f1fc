// What is compared: a row for each kind of work. `rows(sizes)` gives them, `FULL` and `QUICK` say how large they are.
//
// A row has sides, the first of which is ours, and figures. A side is a server and a way to load it: either the
// arguments of `tidings bench` for so many connections, or `idleChannels`; or a program that is both (`run`). A figure is taken from each side's
// result; its goal is a ratio of ours to the reference, or a bound on ours alone.

export const FULL = {
  duration: '10s',
  warmup: '1s',
  subscribers: 1_000,
  many: 9_000,
  few: 100,
  rooms: 10_000,
  rate: 100,
  spreadRate: 10_000,
  singleRate: 1_000,
  queueJobs: 300,
  jobs: 20_000,
  storm: 1_000,
  idleChannels: 100_000,
  clients: 200,
  sustainedRate: 500,
  sustained: '1m',
};
const LONG = '10m';
/** How many jobs run at once on either side. So many submit ours at once; the other side's are added in bulks of 500. */
const AT_ONCE = 256;

/** Shows that everything works; its figures mean nothing. */
export const QUICK = {
  duration: '200ms',
  warmup: '100ms',
  subscribers: 30,
  many: 40,
  few: 10,
  rooms: 40,
  rate: 50,
  spreadRate: 200,
  singleRate: 100,
  queueJobs: 5,
  jobs: 100,
  storm: 40,
  idleChannels: 500,
  clients: 20,
  sustainedRate: 50,
  sustained: '500ms',
};

const ours = (load) => ({ name: 'tidings', server: 'tidings', ...load });
const node = (load) => ({ name: 'Node Socket.IO', server: 'node', ...load });
const overRedis = (load) => ({ name: 'tidings, Redis', server: 'tidings-redis', redis: true, ...load });
const streams = (load) => ({ name: 'Node Socket.IO, redis-streams', server: 'redis', redis: true, ...load });
const floor = (load) => ({ name: 'floor', server: 'floor', ...load });

const deliveries = { what: 'deliveries', unit: '/s', of: (r) => r.deliveries_per_second };
const publishes = { what: 'messages published', unit: '/s', of: (r) => r.publish_per_second };
const cpu = { what: 'CPU per delivery', unit: 'µs', of: (r) => r.server_cpu_us_per_delivery };
const publishCpu = { what: 'CPU per message', unit: 'µs', of: (r) => r.server_cpu_us_per_publish };
const p99 = { what: 'latency p99', unit: 'ms', of: (r) => r.latency_us.p99 / 1e3 };
const arrived = { what: 'delivered', unit: '%', of: (r) => (100 * r.delivered) / r.expected };

export function rows(sizes, { long = false, redis: hasRedis = false } = {}) {
  const n = (count) => count.toLocaleString('en');
  const time = ['--duration', sizes.duration, '--warmup', sizes.warmup];
  const throughput = (connections, ...more) => ({
    connections,
    bench: (subscribers) => ['throughput', '--subscribers', subscribers, ...time, ...more],
  });
  const flatOut = throughput(sizes.subscribers);
  const paced = throughput(sizes.subscribers, '--rate', sizes.rate);
  const urgent = throughput(sizes.subscribers, '--rate', sizes.rate, '--priority', 'high');
  const publishing = throughput(0, '--rooms', 100, '--publish-batch', 50);
  const spread = {
    connections: sizes.rooms,
    bench: (rooms) => ['throughput', '--subscribers', rooms, '--rooms', rooms, '--rate', sizes.spreadRate, ...time],
  };
  // A message or two: what is looked at is the memory of connections that wait.
  const idle = {
    connections: sizes.many,
    bench: (many) => ['throughput', '--subscribers', many, '--rate', 1, '--duration', '1s', '--warmup', '0s'],
  };
  const storm = { connections: sizes.storm, bench: (clients) => ['storm', '--clients', clients] };
  const sustainedFor = long ? LONG : sizes.sustained;
  const sustained = {
    connections: sizes.clients,
    bench: (clients) => ['sustained', '--clients', clients, '--rate', sizes.sustainedRate, '--duration', sustainedFor],
  };
  const memory = {
    what: 'memory per connection',
    unit: 'kB',
    of: ({ server_rss_kb: rss, subscribers }) => (rss.after - rss.before) / subscribers,
  };
  const perChannel = {
    what: 'memory per channel',
    unit: 'kB',
    of: ({ server_rss_kb: rss, channels }) => (rss.after - rss.before) / channels,
  };
  const all = [
    {
      id: '1',
      work: `${n(sizes.subscribers)} subscribers of one room, flat out, plain clients`,
      sides: [ours(flatOut), node(flatOut)],
      figures: [
        { ...deliveries, goal: { ratioAtLeast: 9 } },
        { ...cpu, goal: { ratioAtMost: 1 / 6 } },
      ],
    },
    {
      id: '2',
      work: 'the same, our clients with `batch: true`',
      sides: [ours(throughput(sizes.subscribers, '--batch')), node(flatOut)],
      figures: [deliveries, { ...cpu, goal: { ratioAtMost: 1 / 15 } }],
    },
    {
      id: '3',
      work: `${n(sizes.subscribers)} subscribers, ${n(sizes.rate)} normal publishes/s, default window`,
      sides: [ours(paced), floor(paced)],
      figures: [{ ...cpu, goal: { ratioAtMost: 0.4 } }],
    },
    {
      id: '4',
      work: `${n(sizes.subscribers)} subscribers, ${n(sizes.rate)} high publishes/s`,
      sides: [ours(urgent), floor(urgent)],
      figures: [
        { ...cpu, goal: { ratioAtMost: 1.5 } },
        { ...p99, goal: { ratioAtMost: 1.5 } },
      ],
    },
    {
      id: '5',
      work: `${n(sizes.many)} subscribers of one room, flat out, against ${n(sizes.few)}`,
      sides: [
        { ...ours(throughput(sizes.many)), name: `tidings, ${n(sizes.many)}` },
        { ...ours(throughput(sizes.few)), name: `tidings, ${n(sizes.few)}` },
      ],
      figures: [{ ...cpu, goal: { ratioAtMost: 1.3 } }],
    },
    {
      id: '6',
      work: `${n(sizes.many)} idle connections with one room each`,
      sides: [ours(idle), node(idle)],
      figures: [{ ...memory, goal: { atMost: 18 } }],
    },
    {
      id: '7',
      work: `${n(sizes.storm)} clients connect and join at once`,
      sides: [ours(storm), node(storm)],
      figures: [
        { what: 'failed', unit: '', of: (r) => r.failed_clients, goal: { atMost: 0 } },
        { what: 'joined p99', unit: 'ms', of: (r) => r.latency_us.p99 / 1e3, goal: { ratioAtMost: 0.5 } },
      ],
    },
    {
      id: '8',
      work: 'publishing over HTTP in batches of 50 to 100 channels, durable, against a server without storage',
      sides: [ours(publishing), node(publishing)],
      figures: [{ ...publishes, goal: { ratioAtLeast: 0.8 } }, publishCpu],
    },
    {
      id: '9',
      work: `${n(sizes.rooms)} rooms with one subscriber each, ${n(sizes.spreadRate)} publishes/s`,
      sides: [ours(spread), node(spread)],
      figures: [{ ...cpu, goal: { ratioAtMost: 1 / 3 } }, p99],
    },
    {
      id: '10',
      work: `${n(sizes.idleChannels)} idle channels with history`,
      sides: [ours({ connections: 0, idleChannels: sizes.idleChannels })],
      figures: [{ ...perChannel, goal: { atMost: 1 } }],
    },
    {
      id: '11',
      work: `${sustainedFor} of sustained load, ${n(sizes.clients)} clients, ${n(sizes.sustainedRate)} messages/s`,
      once: true,
      sides: [ours(sustained)],
      figures: [
        { ...arrived, goal: { atLeast: 100 } },
        { what: 'memory flat', unit: '', of: (r) => r.memory_flat, goal: { is: true } },
        p99,
      ],
    },
  ];
  const single = throughput(0, '--rooms', 100, '--publish-batch', 1, '--publishers', 8, '--rate', sizes.singleRate);
  const queue = { connections: 0, bench: () => ['queue', '--jobs', sizes.queueJobs] };
  const jobs = (...run) => ({
    connections: 0,
    redis: true,
    run: [...run, '--jobs', sizes.jobs, '--concurrency', AT_ONCE],
  });
  const withRedis = [
    {
      id: 'redis-1',
      work: `over Redis: ${n(sizes.subscribers)} subscribers of one room, flat out`,
      sides: [overRedis(flatOut), streams(flatOut)],
      figures: [deliveries, cpu],
    },
    {
      id: 'redis-8',
      work: 'over Redis: publishing over HTTP in batches of 50 to 100 channels',
      sides: [overRedis(publishing), streams(publishing)],
      figures: [{ ...publishes, goal: { ratioAtLeast: 2 } }, publishCpu],
    },
    {
      id: 'redis-single',
      work: `over Redis: ${n(sizes.singleRate)} single publishes/s`,
      sides: [overRedis(single), streams(single)],
      figures: [{ what: 'publish p99', unit: 'ms', of: (r) => r.publish_us.p99 / 1e3, goal: { atMost: 5 } }],
    },
    {
      id: 'redis-queue',
      work: 'over Redis: submission of a job until its test starts, one by one',
      sides: [overRedis(queue)],
      figures: [{ what: 'started p50', unit: 'ms', of: (r) => r.p50 / 1e3, goal: { atMost: 2 } }],
    },
    {
      id: 'redis-jobs',
      work: `over Redis: jobs that do nothing, ${AT_ONCE} at once, with all their events`,
      sides: [
        { name: 'tidings, Redis', ...jobs('tidings', 'bench', 'jobs', '--json') },
        { name: 'BullMQ', ...jobs('node/bullmq.mjs') },
      ],
      figures: [{ what: 'jobs', unit: '/s', of: (r) => r.jobs_per_second, goal: { atLeast: 4_000 } }],
    },
  ];
  return hasRedis ? [...all, ...withRedis] : all;
}

/** The row without goals: for a run whose figures mean nothing. */
export function withoutGoals(row) {
  return { ...row, figures: row.figures.map(({ goal, ...figure }) => figure) };
}

/** The row with no more than `most` connections, and notes of what had to be changed for that. */
export function within(row, most) {
  const sides = row.sides.map((side) => ({ ...side, connections: Math.min(side.connections, most) }));
  const cut = row.sides.filter(({ connections }) => connections > most);
  const wanted = [...new Set(cut.map(({ connections }) => connections))];
  const notes = wanted.map((n) => `${n} connections need more open files than are allowed; ${most} were made`);
  return { ...row, sides, notes };
}
