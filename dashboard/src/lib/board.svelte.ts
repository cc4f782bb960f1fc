/** All tests and jobs, live: fetched once, then kept by what `test-updates` and `queue-updates` tell. */
import type { Job, Jobs, MessageOf, Pause, QueueState, Room, Snapshot, Stats, Tests, Tidings } from 'tidings-client';
import { fold, hasEnded, type TestMessage } from 'tidings-client/fold';
import { soon } from './frame.svelte';
import { session } from './session.svelte';

const MAX_ENDED = 100;
const MAX_LISTED = 2_000;
const MAX_WAITING = 500;
/** More than this, told while the state is fetched, is fetched again instead. */
const MAX_HELD = 20_000;
const RETRY_MS = 2_000;
/** Jobs are listed anew at most this often, however many are told of. */
const LIST_EVERY_MS = 1_000;
/** Where a room may not be joined, everything is fetched so often instead. */
const LOOK_EVERY_MS = 3_000;
/** Rows that nobody sees are drawn at most this often, and only so many of them in one drawing. */
const UNSEEN_EVERY_MS = 2_000;
const UNSEEN_AT_ONCE = 20;

type QueueMessage = MessageOf<'queue-updates'>;
type PauseMessage = Extract<QueueMessage, { event: 'queue:paused' | 'queue:resumed' }>;
type JobMessage = Exclude<QueueMessage, PauseMessage>;
export type KnownJob = Partial<Job> & Pick<Job, 'jobId' | 'testId' | 'testType' | 'state' | 'attempt'>;

type Listed = { jobs: Job[]; depth: number; paused: Pause[] };

/** One test as it is drawn: its state changes only when it is drawn anew. */
export class Row {
  test = $state.raw<Snapshot>(undefined as never);
  /** When it was heard of last, by the server's clock; its `etaMs` counts from here. */
  heard = $state.raw(0);
  next: Snapshot;
  nextHeard: number;
  worker?: string;
  /** It is drawn, but scrolled out of sight. */
  unseen = $state(false);
  drawn = 0;

  constructor(test: Snapshot, heard: number) {
    this.test = this.next = test;
    this.heard = this.nextHeard = heard;
  }
}

export class Board {
  /** Failing ones first, then those that run longest. */
  running = $state.raw<Row[]>([]);
  /** The latest first. */
  ended = $state.raw<Row[]>([]);
  /** Scheduled and queued ones, in the order in which they will run. */
  waiting = $state.raw<KnownJob[]>([]);
  /** How many wait, those beyond the list included. */
  depth = $state.raw(0);
  /** What of the queue is held back. */
  paused = $state.raw<Pause[]>([]);
  /** Whether all of it is told live; who may not follow all tests sees their own ones every few seconds. */
  told = $state.raw(true);
  /** Whether there is something to show at all. */
  loaded = $state.raw(false);
  trouble = $state.raw<string>();
  /** Rises when jobs came, went or changed their state; lists are fetched anew then. */
  changes = $state.raw(0);
  /** The test whose job was put into the queue last: its state is another one, which no message of its own tells. */
  added = $state.raw<{ testId: string }>();

  #rows = new Map<string, Row>();
  #jobs = new Map<string, KnownJob>();
  #dirty = new Set<Row>();
  #resort = true;
  #held: (() => void)[] = [];
  #fresh = false;
  #fetching = 0;
  #rooms: Room<any>[] = [];
  #refused = new Set<string>();
  #look?: ReturnType<typeof setTimeout>;
  #listed = 0;
  #listing?: ReturnType<typeof setTimeout>;
  #closed = false;

  constructor(readonly tidings: Tidings) {
    this.#join('test-updates', (message: TestMessage) => this.#test(message));
    this.#join('queue-updates', (message: QueueMessage) => this.#queue(message));
  }

  #join<M>(name: string, apply: (message: M) => void): void {
    const settled = (recovered: boolean) => {
      this.told = !this.#refused.size;
      // Fetched before all rooms are joined, the state could miss what happens in between.
      const all = this.#rooms.length === 2 && this.#rooms.every((room) => room.position || this.#refused.has(room.name));
      if (all && (!recovered || !this.#fresh)) this.load();
    };
    const handler = {
      joined: ({ recovered }: { recovered: boolean }) => {
        this.#refused.delete(name);
        queueMicrotask(() => settled(recovered));
      },
      refused: () => {
        this.#refused.add(name);
        queueMicrotask(() => settled(false));
      },
      reset: () => this.load(),
      message: (message: any) => {
        if (this.#fresh) apply(message);
        else if (this.#held.push(() => apply(message)) > MAX_HELD) this.load();
      },
    };
    this.#rooms.push(this.tidings.join(name, handler, { since: 'now' }));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#listing);
    clearTimeout(this.#look);
    for (const room of this.#rooms) room.leave();
  }

  /** Fetches everything; what is told meanwhile waits, and is told again on top of it. */
  load(): void {
    const mine = ++this.#fetching;
    clearTimeout(this.#look);
    this.#fresh = false;
    this.#held = [];
    this.#fetch(mine).catch((error) => {
      if (mine !== this.#fetching || this.#closed) return;
      this.trouble = error.message;
      setTimeout(() => mine === this.#fetching && !this.#closed && this.load(), RETRY_MS);
    });
  }

  async #fetch(mine: number): Promise<void> {
    const [running, retrying, jobs, ...ended] = await Promise.all([
      this.#tests('running', MAX_LISTED),
      this.#tests('retrying', MAX_LISTED),
      this.#listJobs(),
      ...['completed', 'failed', 'cancelled'].map((state) => this.#tests(state, MAX_ENDED)),
    ]);
    const working = await this.#page<Job>('jobs', 'running', MAX_LISTED);
    if (mine !== this.#fetching || this.#closed) return;
    const heard = this.tidings.now();
    this.#rows = new Map();
    for (const test of [...running, ...retrying, ...ended.flat()]) this.#rows.set(test.testId, new Row(test, heard));
    for (const job of working) {
      const row = this.#rows.get(job.testId);
      if (row) row.worker = job.workerId;
    }
    this.#setJobs(jobs);
    this.#fresh = true;
    this.loaded = true;
    this.trouble = undefined;
    // Some of these are in the fetched state already; told again, in order, they end in the same state.
    for (const apply of this.#held.splice(0)) apply();
    this.#resort = true;
    this.changes++;
    soon(this.#draw);
    if (this.#refused.size) this.#look = setTimeout(() => this.load(), LOOK_EVERY_MS);
  }

  async #tests(state: string, limit: number): Promise<Snapshot[]> {
    return this.#page<Snapshot>('tests', state, limit);
  }

  async #page<T>(list: 'tests' | 'jobs', state: string, limit: number): Promise<T[]> {
    const found: T[] = [];
    for (let cursor = ''; found.length < limit; ) {
      const size = Math.min(500, limit - found.length);
      const path = `/api/v1/${list}?state=${state}&limit=${size}&cursor=${encodeURIComponent(cursor)}`;
      const page = (await session.ask<Tests & Jobs>('GET', path)) as unknown as Record<string, T[]> & { next?: string };
      found.push(...(page[list] ?? []));
      if (!page.next) break;
      cursor = page.next;
    }
    return found;
  }

  async #listJobs(): Promise<Listed> {
    const [{ paused }, stats, ...lists] = await Promise.all([
      session.ask<QueueState>('GET', '/api/v1/queue'),
      session.ask<Stats>('GET', '/api/v1/stats').catch(() => undefined),
      ...['queued', 'scheduled'].map((state) => this.#page<Job>('jobs', state, MAX_WAITING)),
    ]);
    const jobs = lists.flat();
    // Where the list has all of them, it has those that the user may see, and no more.
    const counted = lists.some((list) => list.length >= MAX_WAITING) ? (stats?.jobs.queued ?? 0) + (stats?.jobs.scheduled ?? 0) : 0;
    return { jobs, depth: Math.max(jobs.length, counted), paused };
  }

  #setJobs({ jobs, depth, paused }: Listed): void {
    this.paused = paused;
    this.#jobs = new Map(jobs.map((job) => [job.jobId, job]));
    this.depth = depth;
    this.#resort = true;
    this.#listed = Date.now();
  }

  /** Messages tell less of a job than the list does, so that is fetched anew soon after them. */
  #listSoon(): void {
    this.changes++;
    this.#listIn(Math.max(50, this.#listed + LIST_EVERY_MS - Date.now()));
  }

  #listIn(ms: number): void {
    this.#listing ??= setTimeout(async () => {
      this.#listing = undefined;
      const mine = this.#fetching;
      const found = await this.#listJobs().catch(() => undefined);
      if (mine !== this.#fetching || this.#closed || !this.#fresh) return;
      // What was told once is not told again when the room goes on after a loss.
      if (!found) return this.#listIn(RETRY_MS);
      this.#setJobs(found);
      soon(this.#draw);
    }, ms);
  }

  #test(message: TestMessage): void {
    const { testId, workerId } = message.data as { testId?: string; workerId?: string };
    if (!testId) return;
    let row = this.#rows.get(testId);
    if (!row) {
      row = new Row(fold(undefined, message), message.timestamp);
      this.#rows.set(testId, row);
      this.#resort = true;
    } else {
      const before = row.next;
      // Told again on top of the fetched state, its end is no beginning.
      if (hasEnded(before) && message.timestamp <= (before.endedAt ?? 0)) return;
      row.next = fold(before, message);
      row.nextHeard = message.timestamp;
      if (before.state !== row.next.state || before.counts.failed > 0 !== row.next.counts.failed > 0) this.#resort = true;
    }
    if (workerId) row.worker = workerId;
    this.#dirty.add(row);
    soon(this.#draw);
  }

  #queue(message: QueueMessage): void {
    // Which jobs wait for that, and why, the list says.
    if (message.event === 'queue:paused' || message.event === 'queue:resumed') this.#listSoon();
    else this.#job(message as JobMessage);
  }

  #job(message: JobMessage): void {
    const { data, event } = message;
    const known = this.#jobs.get(data.jobId);
    if (event === 'queue:job:progress') return;
    if (event === 'queue:job:added') {
      this.added = { testId: data.testId };
      const row = this.#rows.get(data.testId);
      if (row && hasEnded(row.next)) {
        this.#rows.delete(data.testId);
        this.#dirty.delete(row);
      }
    }
    if (data.state === 'queued' || data.state === 'scheduled') {
      const createdAt = known?.createdAt ?? message.timestamp;
      this.#jobs.set(data.jobId, { createdAt, ...known, ...data });
      if (!known) this.depth++;
    } else if (this.#jobs.delete(data.jobId)) {
      this.depth = Math.max(this.#jobs.size, this.depth - 1);
    }
    this.#resort = true;
    this.#listSoon();
    soon(this.#draw);
  }

  #draw = (): void => {
    const now = performance.now();
    let unseen = 0;
    for (const row of this.#dirty) {
      if (row.unseen && row.test.state === row.next.state) {
        if (now - row.drawn < UNSEEN_EVERY_MS || unseen >= UNSEEN_AT_ONCE) continue;
        unseen++;
      }
      row.test = row.next;
      row.heard = row.nextHeard;
      row.drawn = now;
      this.#dirty.delete(row);
    }
    if (this.#dirty.size) soon(this.#draw);
    if (!this.#resort) return;
    this.#resort = false;
    const rows = [...this.#rows.values()];
    const isFailing = ({ test }: Row) => Number(test.counts.failed > 0 || test.state === 'retrying');
    this.running = rows
      .filter(({ test }) => test.state === 'running' || test.state === 'retrying')
      .sort((a, b) => isFailing(b) - isFailing(a) || (a.test.startedAt ?? 0) - (b.test.startedAt ?? 0));
    const ended = rows.filter(({ test }) => hasEnded(test)).sort((a, b) => (b.test.endedAt ?? 0) - (a.test.endedAt ?? 0));
    for (const old of ended.splice(MAX_ENDED)) this.#rows.delete(old.test.testId);
    this.ended = ended;
    const due = (job: KnownJob) => (job.state === 'scheduled' ? (job.runAt ?? 0) : 0);
    this.waiting = [...this.#jobs.values()].sort(
      (a, b) => due(a) - due(b) || (b.priority ?? 2) - (a.priority ?? 2) || (a.createdAt ?? 0) - (b.createdAt ?? 0),
    );
  };
}
