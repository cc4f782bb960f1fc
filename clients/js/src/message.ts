/** Messages and channels, typed by name: what `types.ts` declares, put together. */
import type { Channels, EventData, Message, Position, Snapshot } from './types.js';

/** The name of a channel that the server's own `channels.toml` declares. */
export type KnownChannel = Channels[keyof Channels]['name'];

/** The events that a channel of this name carries; any, where the server has channels of its own. */
export type EventOf<Channel extends string> = Channel extends KnownChannel
  ? { [N in keyof Channels]: Channel extends Channels[N]['name'] ? Channels[N]['event'] : never }[keyof Channels]
  : string;

/** What every message has, beside the fields that its sender added. */
type Envelope = { [Field in keyof Message as string extends Field ? never : Field]: Message[Field] };

/** A message of one event. */
export type MessageWith<Event extends string> = Event extends keyof EventData
  ? Omit<Envelope, 'event' | 'data'> & { event: Event; data: EventData[Event] }
  : Omit<Envelope, 'event' | 'data'> & { event: Event; data: unknown };

/** A message of a channel; its `event` tells which data it has. */
export type MessageOf<Channel extends string> = MessageWith<EventOf<Channel>>;

/** Any message. */
export type AnyMessage = MessageWith<keyof EventData> | MessageWith<`custom:${string}`>;

/** What a client hands to `publish`: a message without what the server gives it. */
export type Outgoing<Event extends string = string> = {
  channel: string;
  event: Event;
  data: Event extends keyof EventData ? EventData[Event] : unknown;
  id?: string;
  priority?: number;
};

/** Where to begin: after a position, with all that history has, or with what comes. */
export type Since = Position | 'start' | 'now';

export type { Position, Snapshot };
