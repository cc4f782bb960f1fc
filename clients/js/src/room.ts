/** One joined room: what continues what, without any I/O. */
import type { JoinAck, Position, Reset, Snapshot } from './types.js';
import { tell, type TidingsError } from './error.js';
import type { MessageOf, Since } from './message.js';

/**
 * What a room tells. A plain function stands for `{ message }`. What it throws is reported as an uncaught error, and
 * stops nothing: the next message comes all the same.
 */
export interface RoomHandler<Channel extends string = string> {
  /** The next message, in order and each once. */
  message?(message: MessageOf<Channel>): void;
  /** The state of the test at `room.position`: first, and after a reset. Fold the messages that follow onto it. */
  snapshot?(snapshot: Snapshot): void;
  /** What follows does not continue what you had: forget it. */
  reset?(reset: Reset): void;
  /** The room was joined, for the first time or again. */
  joined?(ack: JoinAck): void;
  /** The server refused the join; it is tried again with the next connection. */
  refused?(error: TidingsError): void;
}

/** How to join. */
export interface JoinOptions {
  /** Where to begin; without it a device goes on where it was (`clientId`), any other one with what comes. */
  since?: Since;
  /** Ask for the snapshot although messages are replayed; those up to it are already inside. */
  snapshot?: boolean;
  /** Confirm to the server what was processed, so that a device (`clientId`) goes on there: at least once. */
  acknowledge?: boolean;
  /** The channel has no history (`history.size = 0`): its gaps are no error. */
  lossy?: boolean;
}

/** What to do with a message. */
export type Verdict = 'next' | 'known' | 'gap' | 'early';

/** A room that somebody wants to be in. */
export class Room<Channel extends string = string> {
  /** The last message that was handed over, or where the room began; none before the first join. */
  position?: Position;
  /** Everything up to here was there when the room was joined last. */
  #top = 0;
  #asked?: Since;
  /** The number of the newest join; answers to earlier ones count no more. */
  #turn = 0;
  #joined = false;

  constructor(
    /** The channel. */
    readonly name: Channel,
    /** Who is told. */
    readonly handler: RoomHandler<Channel>,
    /** How it is joined. */
    readonly options: JoinOptions,
    /** Leaves the room. */
    readonly leave: () => void,
  ) {}

  /** Whether everything was handed over that was there when the room was joined last. */
  get isLive(): boolean {
    return this.#joined && this.position!.offset >= this.#top;
  }

  /** The arguments of the next join, and its number. */
  ask(): { turn: number; request: object } {
    this.#joined = false;
    this.#asked = this.position ?? this.options.since;
    const snapshot = this.options.snapshot && !this.position;
    return { turn: ++this.#turn, request: { room: this.name, since: this.#asked && place(this.#asked), snapshot } };
  }

  /** Whether `turn` is the newest join. */
  isNewest(turn: number): boolean {
    return turn === this.#turn;
  }

  /** The connection is gone; what still comes belongs to nobody. */
  lost(): void {
    this.#turn++;
    this.#joined = false;
  }

  /** The server took the newest join. */
  joined(ack: JoinAck): void {
    const top = { epoch: ack.epoch, offset: ack.offset };
    const asked = this.#asked === 'start' ? { epoch: ack.epoch, offset: 0 } : this.#asked;
    const replays = ack.recovered && ack.replayed > 0;
    this.position = replays ? place(ack.since ?? (asked as Position)) : top;
    this.#top = ack.offset;
    this.#joined = true;
    const { handler } = this;
    tell(() => handler.joined?.(ack));
    // It may have left in between.
    if (ack.snapshot && this.#joined) tell(() => handler.snapshot?.(ack.snapshot!));
  }

  /** The server could not go on from `position`. */
  reset(reset: Reset): void {
    this.position = { epoch: reset.epoch, offset: reset.offset };
    this.#top = reset.offset;
    const { handler } = this;
    tell(() => handler.reset?.(reset));
    if (reset.snapshot) tell(() => handler.snapshot?.(reset.snapshot!));
  }

  /** Judges a message and hands it over if it is the next one. */
  take(message: MessageOf<Channel>): Verdict {
    // What comes before the acknowledgement belongs to an earlier join.
    if (!this.#joined) return 'early';
    const { epoch, offset } = this.position!;
    if (message.epoch === epoch && message.offset <= offset) return 'known';
    const next = message.epoch === epoch && message.offset === offset + 1 + (message.conflated ?? 0);
    if (!next && !this.options.lossy) return 'gap';
    this.position = { epoch: message.epoch, offset: message.offset };
    tell(() => this.handler.message?.(message));
    return 'next';
  }
}

/** Without what may stand beside a position in a message: the server is strict. */
function place<S extends Since>(since: S): S {
  return typeof since === 'object' ? ({ epoch: since.epoch, offset: since.offset } as S) : since;
}
