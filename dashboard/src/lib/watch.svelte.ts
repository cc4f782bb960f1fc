/** One test, from its first message on: its state, its measurements over time, its output and its attempts. */
import type { AnyMessage, MessageOf, Room, Snapshot, Stretch, TestFields, Tidings } from 'tidings-client';
import { fold } from 'tidings-client/fold';
import { soon } from './frame.svelte';
import { Series } from './series';
import { session } from './session.svelte';

const MAX_LINES = 5_000;
/** How far back history is read; what it says beyond that is in the state. */
const MAX_HISTORY = 5_000;
const PAGE = 1_000;

export interface Attempt {
  attempt: number;
  state: Snapshot['state'];
  startedAt?: number;
  endedAt?: number;
  worker?: string;
  error?: string;
}
export interface Line {
  number: number;
  text: string;
}
type Channel = `test-progress-${string}`;
type Told = MessageOf<Channel>;

export class Watch {
  test = $state.raw<Snapshot>();
  heard = $state.raw(0);
  attempts = $state.raw<Attempt[]>([]);
  lines = $state.raw<Line[]>([]);
  /** Rises with every point of `series`. */
  points = $state.raw(0);
  joined = $state.raw(false);
  refused = $state.raw<string>();
  /** Of the newest attempt. */
  readonly series = new Series();

  #room: Room<Channel>;
  #test?: Snapshot;
  #heard = 0;
  #lines: Line[] = [];
  #attempts: Attempt[] = [];
  /** Messages that wait until what was before them is read. */
  #held?: Told[];
  #loading = 0;

  constructor(
    tidings: Tidings,
    readonly testId: string,
  ) {
    this.#room = tidings.join<Channel>(
      `test-progress-${testId}`,
      {
        snapshot: (snapshot) => {
          this.#test = snapshot;
          this.#heard = tidings.now();
          this.#draw();
        },
        joined: ({ epoch, offset, recovered }) => {
          this.joined = true;
          this.refused = undefined;
          if (!recovered) void this.#load(epoch, offset);
        },
        reset: ({ epoch, offset }) => {
          this.#test = undefined;
          void this.#load(epoch, offset);
        },
        refused: (error) => (this.refused = error.message),
        message: (message) => (this.#held ? this.#held.push(message) : this.#take(message)),
      },
      { since: 'now', snapshot: true },
    );
  }

  close(): void {
    this.#loading++;
    this.#room.leave();
  }

  /** Looks at the state anew: it was put into the queue, which none of its messages tells. */
  async refresh(): Promise<void> {
    const found = await session.ask<Snapshot>('GET', `/api/v1/tests/${encodeURIComponent(this.testId)}`).catch(() => undefined);
    const known = this.#room.position;
    // What was told meanwhile is newer.
    if (!found || !known || found.epoch !== known.epoch || found.offset < known.offset) return;
    this.#test = found;
    this.#draw();
  }

  /** Reads what happened up to `top`; what happens meanwhile waits. */
  async #load(epoch: string, top: number): Promise<void> {
    const mine = ++this.#loading;
    this.#held = [];
    this.series.clear();
    this.#lines = [];
    this.#attempts = [];
    try {
      for (let offset = Math.max(0, top - MAX_HISTORY); offset < top; ) {
        const query = `epoch=${epoch}&offset=${offset}&limit=${Math.min(PAGE, top - offset)}`;
        const path = `/api/v1/channels/test-progress-${encodeURIComponent(this.testId)}/messages?${query}`;
        const page: Stretch = await session.ask<Stretch>('GET', path);
        if (mine !== this.#loading) return;
        for (const message of page.messages as unknown as AnyMessage[]) this.#note(message as Told);
        const last = page.messages.at(-1)?.offset;
        if (last === undefined) break;
        offset = last;
      }
    } catch {
      // The state is known, and what comes is shown; only the past is missing.
    }
    if (mine !== this.#loading) return;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const message of held) this.#take(message);
    this.#draw();
  }

  #take(message: Told): void {
    this.#test = fold(this.#test, message);
    this.#heard = message.timestamp;
    this.#note(message);
    this.#draw();
  }

  /** What the state does not tell: how it came to it. */
  #note({ event, data: untyped, timestamp }: Told): void {
    if (!event.startsWith('test:')) return;
    const data = untyped as TestFields;
    const number = data.attempt ?? this.#attempts.at(-1)?.attempt ?? 1;
    let attempt = this.#attempts.at(-1);
    if (attempt?.attempt !== number || (event === 'test:started' && attempt.endedAt)) {
      attempt = { attempt: number, state: 'running' };
      this.#attempts = [...this.#attempts, attempt];
      this.series.clear();
      this.#lines = [];
    }
    if (event === 'test:started') {
      attempt.startedAt = data.startedAt ?? timestamp;
      attempt.worker = data.workerId;
    } else if (event === 'test:progress') {
      attempt.startedAt ??= timestamp;
      this.#measure(timestamp, data);
    } else if (event === 'test:log') {
      this.#log(data.firstLine ?? 1, data.lines ?? []);
    } else {
      attempt.endedAt = timestamp;
      attempt.error = data.error?.message ?? data.reason;
      attempt.state = event === 'test:completed' ? 'completed' : event === 'test:cancelled' ? 'cancelled' : 'failed';
      this.#measure(timestamp, { ...data, progress: event === 'test:completed' ? 100 : undefined });
    }
  }

  #measure(timestamp: number, { progress, counts, completed, metrics }: TestFields): void {
    const measured: Record<string, number | undefined> = { progress };
    if (counts) Object.assign(measured, { passed: counts.passed, failed: counts.failed, skipped: counts.skipped });
    else if (completed !== undefined) measured.passed = completed;
    for (const [name, value] of Object.entries(metrics ?? {})) if (typeof value === 'number') measured[`metrics.${name}`] = value;
    this.series.add(timestamp, measured);
  }

  #log(first: number, lines: string[]): void {
    const last = this.#lines.at(-1)?.number ?? 0;
    lines.forEach((text, i) => first + i > last && this.#lines.push({ number: first + i, text }));
    if (this.#lines.length > MAX_LINES * 1.2) this.#lines = this.#lines.slice(-MAX_LINES);
  }

  #draw(): void {
    soon(this.#show);
  }

  #show = (): void => {
    this.test = this.#test;
    this.heard = this.#heard;
    this.attempts = this.#attempts.map((attempt) => ({ ...attempt }));
    if (this.lines.at(-1) !== this.#lines.at(-1) || this.lines.length !== this.#lines.length) this.lines = [...this.#lines];
    this.points++;
  };
}
