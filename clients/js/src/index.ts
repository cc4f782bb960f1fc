/**
 * The client of a tidings server: rooms whose messages come in order, each once, and with everything that was
 * missed while the connection was away.
 */
export { connect, Tidings, type Options, type Status, type Token } from './client.js';
export { TidingsError } from './error.js';
export type * from './message.js';
export { watchPresence } from './presence.js';
export type { JoinOptions, Room, RoomHandler } from './room.js';
export type * from './types.js';
