/** The notifications of the user, the same on all of their devices. */
import type { Changed, InboxMessage, InboxMessages, MessageOf, Room, Tidings } from 'tidings-client';
import { session } from './session.svelte';

const PAGE = 100;
/** Reading on another device is no news in the channel, so the list is looked at now and then. */
const LOOK_EVERY_MS = 5_000;
const MAX_READ = 200;

type Channel = `user-notifications-${string}`;

export class Inbox {
  /** The unread ones, oldest first as the server lists them. */
  unread = $state.raw<InboxMessage[]>([]);
  /** How many there are in all. */
  total = $state(0);
  /** What was read or recalled while this page looked. */
  read = $state.raw<InboxMessage[]>([]);
  loaded = $state(false);
  trouble = $state<string>();

  #room: Room<Channel>;
  #turn = 0;
  #timer?: ReturnType<typeof setTimeout>;
  #more?: string;
  #closed = false;
  /** Other tabs of this browser need not wait for their next look. */
  #tabs: BroadcastChannel;

  constructor(
    tidings: Tidings,
    readonly userId: string,
  ) {
    this.#tabs = new BroadcastChannel(`tidings.inbox.${userId}`);
    this.#tabs.onmessage = () => void this.load();
    this.#room = tidings.join<Channel>(
      `user-notifications-${userId}`,
      {
        joined: () => void this.load(),
        reset: () => void this.load(),
        message: (message) => this.#take(message),
        refused: (error) => (this.trouble = error.message),
      },
      { since: 'now' },
    );
    document.addEventListener('visibilitychange', this.#seen);
  }

  close(): void {
    this.#closed = true;
    this.#turn++;
    clearTimeout(this.#timer);
    this.#tabs.close();
    this.#room.leave();
    document.removeEventListener('visibilitychange', this.#seen);
  }

  get hasMore(): boolean {
    return this.unread.length < this.total;
  }

  #seen = (): void => void (document.hidden || this.load());

  async load(): Promise<void> {
    const mine = ++this.#turn;
    clearTimeout(this.#timer);
    try {
      const limit = Math.min(1000, Math.max(PAGE, this.unread.length));
      const page = await session.ask<InboxMessages>('POST', '/api/v1/messages/unread', { limit });
      if (mine !== this.#turn) return;
      const ids = new Set(page.messages.map(({ id }) => id));
      const gone = this.unread.filter(({ id }) => !ids.has(id));
      if (!page.next) this.#remember(gone.map((message) => ({ ...message, status: 'read' as const })));
      this.unread = page.messages;
      this.total = page.total;
      this.#more = page.next;
      this.loaded = true;
      this.trouble = undefined;
    } catch (error) {
      if (mine === this.#turn) this.trouble = (error as Error).message;
    }
    if (mine === this.#turn && !this.#closed) this.#timer = setTimeout(() => void this.load(), LOOK_EVERY_MS);
  }

  async more(): Promise<void> {
    const mine = this.#turn;
    const page = await session.ask<InboxMessages>('POST', '/api/v1/messages/unread', { after: this.#more, limit: PAGE });
    if (mine !== this.#turn) return;
    this.unread = [...this.unread, ...page.messages];
    this.#more = page.next;
  }

  async markRead(messages: InboxMessage[]): Promise<void> {
    try {
      for (let at = 0; at < messages.length; at += 1000) {
        const messageIds = messages.slice(at, at + 1000).map(({ id }) => id);
        const { total } = await session.ask<Changed>('POST', '/api/v1/messages/mark-read', { messageIds });
        const marked = new Set(messageIds);
        this.#turn++; // a list that was asked for before says the old state
        this.#remember(this.unread.filter(({ id }) => marked.has(id)).map((message) => ({ ...message, status: 'read' as const, readAt: Date.now() })));
        this.unread = this.unread.filter(({ id }) => !marked.has(id));
        this.total = total;
      }
      this.trouble = undefined;
    } catch (error) {
      this.trouble = (error as Error).message;
    }
    this.#tabs.postMessage('read');
    void this.load();
  }

  #take({ event, data, ...rest }: MessageOf<Channel>): void {
    if (event === 'user:notification:recalled') {
      const { messageId } = data as { messageId: string };
      const recalled = this.unread.find(({ id }) => id === messageId);
      if (!recalled) return;
      this.#remember([{ ...recalled, status: 'recalled' }]);
      this.unread = this.unread.filter(({ id }) => id !== messageId);
      this.total--;
    } else if (!this.unread.some(({ id }) => id === rest.id)) {
      // Behind what is not loaded it would leave a hole.
      if (!this.hasMore) this.unread = [...this.unread, { ...rest, event, data, status: 'unread' } as InboxMessage];
      this.total++;
    }
  }

  #remember(messages: InboxMessage[]): void {
    const known = new Set(this.read.map(({ id }) => id));
    this.read = [...messages.filter(({ id }) => !known.has(id)).reverse(), ...this.read].slice(0, MAX_READ);
  }
}
