/** How the server is: its metrics and counts, looked at while somebody looks at them. */
import type { Connections, MessageOf, Room, Stats, Stretch, Tidings } from 'tidings-client';
import { Look, mean, quantile, rate } from './prometheus';
import { Series } from './series';
import { session } from './session.svelte';

const EVERY_MS = 2_000;
/** Until there is something to draw. */
const FIRST_MS = 500;
const KEPT_MS = 10 * 60_000;
const MAX_ALERTS = 50;
const MAX_CONNECTIONS = 200;

export const PRIORITIES = ['critical', 'high', 'normal', 'low'] as const;
export type Alert = MessageOf<'system-alerts'>;

export class Health {
  look = $state.raw<Look>();
  stats = $state.raw<Stats>();
  connections = $state.raw<Connections>();
  alerts = $state.raw<Alert[]>([]);
  /** Rises with every point of `series`. */
  points = $state(0);
  /** What may not be seen, or cannot be now: by what it is. */
  trouble = $state.raw<Record<string, string>>({});
  readonly series = new Series();

  #before?: Look;
  #room: Room<'system-alerts'>;
  #timer?: ReturnType<typeof setTimeout>;
  #closed = false;

  constructor(tidings: Tidings) {
    const fresh = (ack: { epoch: string; offset: number; recovered?: boolean }) => void this.#pastAlerts(ack.epoch, ack.offset);
    this.#room = tidings.join(
      'system-alerts',
      {
        joined: (ack) => !ack.recovered && fresh(ack),
        reset: fresh,
        message: (message) => (this.alerts = [message, ...this.alerts].slice(0, MAX_ALERTS)),
        refused: (error) => this.#note('alerts', error.message),
      },
      { since: 'now' },
    );
    void this.#watch();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#room.leave();
  }

  async #pastAlerts(epoch: string, top: number): Promise<void> {
    const path = `/api/v1/channels/system-alerts/messages?epoch=${epoch}&offset=${Math.max(0, top - MAX_ALERTS)}&limit=${MAX_ALERTS}`;
    const past = await session.ask<Stretch>('GET', path).catch(() => undefined);
    if (!past || this.#closed) return;
    const newer = this.alerts.filter(({ epoch: of, offset }) => of === epoch && offset > top);
    const older = (past.messages as unknown as Alert[]).filter(({ offset }) => offset <= top);
    this.alerts = [...newer, ...older.reverse()].slice(0, MAX_ALERTS);
  }

  async #watch(): Promise<void> {
    await Promise.all([
      this.#get('metrics', async () => this.#measure(await session.ask<string>('GET', '/metrics'))),
      this.#get('stats', async () => (this.stats = await session.ask<Stats>('GET', '/api/v1/stats'))),
      this.#get('connections', async () => {
        this.connections = await session.ask<Connections>('GET', `/api/v1/connections?limit=${MAX_CONNECTIONS}`);
      }),
    ]);
    if (!this.#closed) this.#timer = setTimeout(() => this.#watch(), this.series.times.length < 2 ? FIRST_MS : EVERY_MS);
  }

  async #get(what: string, get: () => Promise<unknown>): Promise<void> {
    try {
      await get();
      this.#note(what, undefined);
    } catch (error) {
      this.#note(what, (error as Error).message);
    }
  }

  #note(what: string, message: string | undefined): void {
    if (this.trouble[what] === message) return;
    const { [what]: _, ...rest } = this.trouble;
    this.trouble = message === undefined ? rest : { ...rest, [what]: message };
  }

  #measure(text: string): void {
    const look = new Look(text, Date.now());
    const before = this.look;
    this.#before = before;
    this.look = look;
    if (!before) return;
    const measured: Record<string, number | undefined> = {
      published: rate(look, before, 'tidings_publications_total'),
      delivered: rate(look, before, 'tidings_deliveries_total'),
      connections: look.sum('tidings_connections'),
      p50: ms(quantile(0.5, look, before, 'tidings_delivery_latency_seconds')),
      p99: ms(quantile(0.99, look, before, 'tidings_delivery_latency_seconds')),
      append: ms(quantile(0.99, look, before, 'tidings_broker_append_seconds')),
    };
    for (const priority of PRIORITIES) measured[priority] = rate(look, before, 'tidings_publications_total', { priority });
    this.series.add(look.at, measured);
    this.series.since(look.at - KEPT_MS);
    this.points++;
  }

  /** Per second, since the look before. */
  rate(name: string, where?: Record<string, string>): number | undefined {
    return this.look && rate(this.look, this.#before, name, where);
  }

  sum(name: string, where?: Record<string, string>): number | undefined {
    return this.look?.sum(name, where);
  }

  mean(name: string): number | undefined {
    return this.look && mean(this.look, this.#before, name);
  }

  quantile(q: number, name: string, where?: Record<string, string>): number | undefined {
    return this.look && quantile(q, this.look, this.#before, name, where);
  }
}

const ms = (seconds: number | undefined) => seconds && seconds * 1000;
