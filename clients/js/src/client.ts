/** The connection: it comes back by itself, joins its rooms again, and knows how it stands. */
import { io, type ManagerOptions, type Socket, type SocketOptions } from 'socket.io-client';
import { tell, TidingsError } from './error.js';
import type { Outgoing } from './message.js';
import { Room, type JoinOptions, type RoomHandler } from './room.js';
import type { Greeting, JoinAck, Message, Placed, Position, Refusal, Reset } from './types.js';

/**
 * A token, or what gets one: asked before every connection, and again when the token is about to end. Where it throws
 * it is asked again later, as after a lost connection; nothing is an answer, and the server says what it thinks of it.
 */
export type Token = string | (() => string | undefined | Promise<string | undefined>);

/** Who connects, and how. */
export interface Options {
  /** Who asks, where the server wants to know. */
  token?: Token;
  /** Names this device, so that a join without `since` goes on where it was. */
  clientId?: string;
  /** Who it is; believed only while the server's authentication is off. */
  userId?: string;
  /** Acknowledge critical messages, so that the server repeats those that did not arrive. */
  acks?: boolean;
  /** Take several messages in one event; on unless told. */
  batch?: boolean;
  /** Options of `socket.io-client`, such as `transports`. */
  socket?: Partial<ManagerOptions & SocketOptions>;
}

/**
 * How it stands with the connection:
 * - `connecting`: for the first time;
 * - `live`: everything that happened was handed over;
 * - `catching-up`: connected, but what was missed is still on its way;
 * - `offline`: it tries to come back by itself;
 * - `refused`: the server does not let it in (`error.code` says why); call `connect()` with a better token;
 * - `closed`: by `close()`.
 */
export interface Status {
  /** One of the words above. */
  state: 'connecting' | 'live' | 'catching-up' | 'offline' | 'refused' | 'closed';
  /** Since when, in ms since the Unix epoch by this machine's clock; a loss counts from its beginning. */
  since: number;
  /** Why it is `offline` or `refused`; the code is one of the server's, or `offline`. */
  error?: { code: string; message: string };
}

type Answer<T> = ({ ok: true } & T) | { ok: false; error: Refusal };

const ANSWER_MS = 20_000;
const RETRY_MS = [500, 30_000] as const;
const ACK_EVERY_MS = 1_000;
const REFRESH_AHEAD_MS = 30_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
/** What another try with the same token does not change. */
const FINAL = /token|blocked|forbidden|handshake/;

/** Connects to the server at `url`; in a browser that is by default the page's own. */
export function connect(url: string = globalThis.location?.origin, options: Options = {}): Tidings {
  return new Tidings(url, options);
}

/** A connection to a server, and the rooms that it is in. */
export class Tidings {
  /** The socket underneath, for events of your own. */
  readonly socket: Socket;
  /** What the server said when it was connected last. */
  session?: Greeting;
  #status: Status = { state: 'connecting', since: Date.now() };
  #watchers = new Set<(status: Status) => void>();
  #rooms = new Map<string, Room>();
  /** Asked for again with the next connection. */
  #refused = new Set<Room>();
  #tries = 0;
  #retry?: ReturnType<typeof setTimeout>;
  #renew?: ReturnType<typeof setTimeout>;
  #skew = 0;
  #unacknowledged = new Set<Room>();
  #acknowledge?: ReturnType<typeof setTimeout>;
  #base: string;

  constructor(
    url: string,
    /** What `connect` was given. */
    readonly options: Options = {},
  ) {
    this.#base = url.replace(/\/+$/, '');
    const { token: _, socket, batch = true, acks, clientId, userId } = options;
    this.socket = io(new URL(url).origin, {
      path: `${new URL(this.#base).pathname.replace(/\/$/, '')}/socket.io/`,
      reconnectionDelay: RETRY_MS[0],
      reconnectionDelayMax: RETRY_MS[1],
      ...socket,
      // Positions are kept here; an inbox that is joined by itself would come twice.
      auth: (use) =>
        void this.#token().then(
          (token) => use({ token, batch, acks, clientId, userId, inbox: false }),
          ({ code, message }) => {
            this.socket.disconnect();
            this.#lost({ code, message });
          },
        ),
    });
    this.socket.onAny((event: string, data: unknown, answer?: unknown) => {
      this.#hear(event, data);
      if (typeof answer === 'function') answer();
    });
    this.socket.on('disconnect', (reason) => this.#lost({ code: 'offline', message: reason }));
    // A reload of the server's rules took it away.
    this.socket.on('error', ({ code, message, room }) => room && this.#refuse(room, code, message));
    this.socket.on('connect_error', (error) => this.#lost(readRefusal(error)));
  }

  /** How it stands now. */
  get status(): Status {
    return this.#status;
  }

  /** Tells `watch` how it stands, now and whenever that changes, until the returned function is called. */
  onStatus(watch: (status: Status) => void): () => void {
    this.#watchers.add(watch);
    tell(() => watch(this.#status));
    return () => this.#watchers.delete(watch);
  }

  /** The server's clock, in ms since the Unix epoch, as well as this machine knows it. */
  now(): number {
    return Date.now() + this.#skew;
  }

  /**
   * Joins a room and stays in it, over lost connections and restarts, until `room.leave()`. A second join of the
   * same room replaces the first.
   */
  join<const Channel extends string>(
    name: Channel,
    handler: RoomHandler<Channel> | NonNullable<RoomHandler<Channel>['message']>,
    options: JoinOptions = {},
  ): Room<Channel> {
    const told = typeof handler === 'function' ? { message: handler } : handler;
    const room: Room<Channel> = new Room(name, told, options, () => {
      this.#refused.delete(room as unknown as Room);
      if (this.#rooms.get(name) !== (room as unknown)) return;
      this.#flushAcknowledged();
      this.#rooms.delete(name);
      room.lost();
      if (this.socket.connected) this.socket.emit('room:leave', name);
      this.#tell();
    });
    this.#rooms.get(name)?.lost();
    this.#rooms.set(name, room as unknown as Room);
    if (this.session && this.socket.connected) this.#join(room as unknown as Room);
    return room;
  }

  /**
   * Publishes a message; resolves once it is durable. Give it an `id` to be able to send it again. It waits for the
   * first connection, and is refused with `offline` where a later one is lost.
   */
  async publish<Event extends string>(message: Outgoing<Event>): Promise<Placed> {
    const { ok: _, ...placed } = await this.#ask<Placed>('event:publish', message);
    return placed as Placed;
  }

  /** Tells the server that everything up to `position` was processed (see `JoinOptions.acknowledge`). */
  async acknowledge(room: string, { epoch, offset }: Position): Promise<void> {
    await this.#ask('message:ack', { room, epoch, offset });
  }

  /** Asks the HTTP interface at `path`, as the same user; JSON in and out. */
  async request<T = unknown>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const token = await this.#token();
    const headers: Record<string, string> = { accept: 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    else if (this.options.userId) headers['x-user-id'] = this.options.userId;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(this.#base + path, { method, headers, body: sent, signal }).catch((error) => {
      throw signal?.aborted ? error : new TidingsError('offline', 'the server cannot be reached');
    });
    const isJson = /json/.test(answer.headers.get('content-type') ?? '');
    const said = await (isJson ? answer.json() : answer.text()).catch((error: Error) => {
      throw signal?.aborted ? error : new TidingsError('offline', `the answer did not come whole: ${error.message}`, answer.status);
    });
    if (answer.ok) return said as T;
    throw new TidingsError(said?.code ?? 'http', said?.detail ?? said?.title ?? `${path} was answered with ${answer.status}`, answer.status);
  }

  /** Hands a new token to the server without a new connection. */
  async refresh(token: string): Promise<void> {
    await this.#ask('auth:refresh', { token });
    this.#renewBeforeEnd(token);
  }

  /** Connects again: after a refusal, or at once instead of at the next try. */
  connect(): void {
    clearTimeout(this.#retry);
    if (this.socket.connected) return;
    // The manager waits for its own next try otherwise.
    this.socket.disconnect().connect();
  }

  /** Leaves for good. */
  close(): void {
    this.#flushAcknowledged();
    clearTimeout(this.#retry);
    clearTimeout(this.#renew);
    this.#set({ state: 'closed', since: Date.now() });
    this.socket.disconnect();
  }

  async #token(): Promise<string | undefined> {
    const { token } = this.options;
    try {
      return typeof token === 'function' ? await token() : token;
    } catch (error) {
      throw new TidingsError('offline', `there is no token at the moment: ${(error as Error)?.message ?? error}`);
    }
  }

  #hear(event: string, data: any): void {
    if (event === 'connection:established') this.#established(data);
    else if (event === 'message:batch') for (const message of data) this.#take(message);
    else if (event === 'room:reset') this.#reset(data);
    else if (data?.offset !== undefined) this.#take(data);
  }

  #established(greeting: Greeting): void {
    this.session = greeting;
    this.#skew = greeting.serverTime - Date.now();
    this.#tries = 0;
    void this.#token().then((token) => token && this.#renewBeforeEnd(token)).catch(() => undefined);
    for (const room of this.#rooms.values()) this.#join(room);
    this.#tell();
  }

  #take(message: Message): void {
    const room = this.#rooms.get(message.channel);
    const verdict = room?.take(message as any);
    if (verdict === 'gap') this.#join(room!);
    else if (verdict === 'next') {
      if (room!.options.acknowledge) this.#willAcknowledge(room!);
      if (this.#status.state !== 'live') this.#tell();
    }
  }

  #reset(reset: Reset): void {
    this.#rooms.get(reset.room)?.reset(reset);
    this.#tell();
  }

  #join(room: Room, tries = 0): void {
    const { turn, request } = room.ask();
    this.#tell();
    this.socket.timeout(ANSWER_MS).emit('room:join', request, (lost: Error | null, ack: Answer<JoinAck>) => {
      if (!room.isNewest(turn) || !this.socket.connected) return;
      const again = () => room.isNewest(turn) && this.socket.connected && this.#join(room, tries + 1);
      if (lost) return void again();
      if (ack.ok) {
        room.joined(ack);
        if (room.options.acknowledge) this.#willAcknowledge(room);
      } else {
        const { code, message } = ack.error;
        if (code === 'unavailable' || code === 'too_many_requests') return void setTimeout(again, pause(tries));
        this.#refuse(room.name, code, message);
      }
      this.#tell();
    });
  }

  #refuse(name: string, code: string, message: string): void {
    const room = this.#rooms.get(name);
    if (!room) return;
    room.lost();
    tell(() => room.handler.refused?.(new TidingsError(code, message)));
    // A refused room must not keep the others from being live.
    this.#rooms.delete(name);
    this.#refused.add(room);
    this.#tell();
  }

  #lost(error: { code: string; message: string }): void {
    if (this.#status.state === 'closed') return;
    this.session = undefined;
    clearTimeout(this.#renew);
    for (const room of this.#refused) if (!this.#rooms.has(room.name)) this.#rooms.set(room.name, room);
    this.#refused.clear();
    for (const room of this.#rooms.values()) room.lost();
    const refused = !this.socket.active && FINAL.test(error.code);
    const since = this.#status.state === 'offline' ? this.#status.since : Date.now();
    this.#set({ state: refused ? 'refused' : 'offline', since, error });
    // Where the server ended it, or did not let it in, the library does not come back by itself.
    clearTimeout(this.#retry);
    if (!this.socket.active && !refused) this.#retry = setTimeout(() => this.socket.connect(), pause(this.#tries++));
  }

  #tell(): void {
    if (!this.session || !this.socket.connected) return;
    const live = [...this.#rooms.values()].every((room) => room.isLive);
    const state = live ? 'live' : 'catching-up';
    if (this.#status.state !== state) this.#set({ state, since: Date.now() });
  }

  #set(status: Status): void {
    this.#status = status;
    for (const watch of this.#watchers) tell(() => watch(status));
  }

  async #ask<T>(event: string, data: unknown): Promise<Answer<T>> {
    // The first connection is worth waiting for; after it, who is offline is told so at once.
    if (this.#status.state === 'connecting')
      await new Promise<void>((go) => {
        const stop = this.onStatus(({ state }) => state !== 'connecting' && (stop(), go()));
      });
    if (!this.socket.connected) throw new TidingsError('offline', 'there is no connection');
    const answer: Answer<T> = await this.socket
      .timeout(ANSWER_MS)
      .emitWithAck(event, data)
      .catch(() => {
        throw new TidingsError('timeout', `${event} was not answered`);
      });
    if (!answer.ok) throw new TidingsError(answer.error.code, answer.error.message);
    return answer;
  }

  #willAcknowledge(room: Room): void {
    this.#unacknowledged.add(room);
    this.#acknowledge ??= setTimeout(() => this.#flushAcknowledged(), ACK_EVERY_MS);
  }

  #flushAcknowledged(): void {
    clearTimeout(this.#acknowledge);
    this.#acknowledge = undefined;
    for (const room of this.#unacknowledged) {
      // What cannot be told now comes again with the next join, and is known then.
      if (this.socket.connected && room.position) void this.acknowledge(room.name, room.position).catch(() => undefined);
    }
    this.#unacknowledged.clear();
  }

  /** Asks for the next token shortly before this one ends, so that the connection stays. */
  #renewBeforeEnd(token: string): void {
    clearTimeout(this.#renew);
    const end = expiry(token);
    if (end === undefined || typeof this.options.token !== 'function') return;
    const left = end - this.now();
    // Where there was none in time, the connection ends with its token, and asks again.
    if (left <= 0) return;
    const wait = Math.max(1000, left - Math.min(REFRESH_AHEAD_MS, left / 5));
    const again = () => this.socket.connected && this.#renewBeforeEnd(token);
    this.#renew = setTimeout(() => {
      void this.#token()
        .then((next) => (next && next !== token ? this.refresh(next) : again()))
        .catch(again);
    }, Math.min(wait, MAX_TIMER_MS));
  }
}

/** When a JWT ends, in ms since the Unix epoch. */
function expiry(token: string): number | undefined {
  try {
    const { exp } = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')));
    return typeof exp === 'number' ? exp * 1000 : undefined;
  } catch {
    return undefined; // opaque, so nobody here can know
  }
}

/** A refused connection has nothing but a text; the server's own is JSON. */
function readRefusal(error: Error): { code: string; message: string } {
  try {
    const { code, message } = JSON.parse(error.message);
    return { code, message };
  } catch {
    return { code: 'offline', message: error.message };
  }
}

/** Spread out, so that a restarted server is not met by everybody at once. */
function pause(tries: number): number {
  return Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** tries) * (0.5 + Math.random() / 2);
}
