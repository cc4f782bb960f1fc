/** The notifications of the user, the same on all of their devices. */
import type { Changed, InboxMessage, InboxMessages, MessageOf, Room, Tidings } from 'tidings-client';
import { session } from './session.svelte';

const PAGE = 100;
/** What is read elsewhere is told, but once only; so the list is looked at now and then. */
const LOOK_EVERY_MS = 60_000;
/** A list that news has overtaken is asked for again, so often in a row at most. */
const MAX_OVERTAKEN = 3;
/** Where that was not enough it is looked at again so soon. */
const SOON_MS = 1_000;
/** The server lists no more at once. */
const MAX_LISTED = 1_000;
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
  /** So many of the unread are wanted at least. */
  #wanted = PAGE;
  #closed = false;
  /** Rises with all that the room tells. */
  #news = 0;

  constructor(
    tidings: Tidings,
    readonly userId: string,
  ) {
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
    this.#room.leave();
    document.removeEventListener('visibilitychange', this.#seen);
  }

  get hasMore(): boolean {
    return this.unread.length < this.total;
  }

  #seen = (): void => void (document.hidden || this.load());

  async load(overtaken = 0): Promise<void> {
    const mine = ++this.#turn;
    const news = this.#news;
    let isOld = false;
    clearTimeout(this.#timer);
    try {
      const wanted = Math.min(MAX_LISTED, Math.max(this.#wanted, this.unread.length));
      const messages: InboxMessage[] = [];
      let page: InboxMessages;
      // A page of long messages has fewer than it was asked for.
      let after: string | undefined;
      do {
        page = await session.ask<InboxMessages>('POST', '/api/v1/messages/unread', { after, limit: wanted - messages.length });
        if (mine !== this.#turn) return;
        messages.push(...page.messages);
        after = page.next;
      } while (after && messages.length < wanted);
      isOld = news !== this.#news;
      if (isOld && overtaken < MAX_OVERTAKEN) return void this.load(overtaken + 1);
      // What came after the list was made is not in it, and not read: what is shown is newer then.
      if (!isOld || !this.loaded) {
        const ids = new Set(messages.map(({ id }) => id));
        const gone = this.unread.filter(({ id }) => !ids.has(id));
        if (!after && !isOld) this.#remember(gone.map((message) => ({ ...message, status: 'read' as const })));
        this.unread = messages;
        this.total = page.total;
        this.loaded = true;
      }
      this.trouble = undefined;
    } catch (error) {
      if (mine === this.#turn) this.trouble = (error as Error).message;
    }
    if (mine === this.#turn && !this.#closed) this.#timer = setTimeout(() => void this.load(), isOld ? SOON_MS : LOOK_EVERY_MS);
  }

  /** Looks at the whole list again, so that nothing of it comes twice, however often it is asked for. */
  more(): Promise<void> {
    this.#wanted = this.unread.length + PAGE;
    return this.load();
  }

  async markRead(messages: InboxMessage[]): Promise<void> {
    try {
      for (let at = 0; at < messages.length; at += 1000) {
        const messageIds = messages.slice(at, at + 1000).map(({ id }) => id);
        const { total } = await session.ask<Changed>('POST', '/api/v1/messages/mark-read', { messageIds });
        this.#turn++; // a list that was asked for before says the old state
        this.#isRead(messageIds);
        this.total = total;
      }
      this.trouble = undefined;
    } catch (error) {
      this.trouble = (error as Error).message;
    }
    void this.load();
  }

  /** Takes `ids` out of the unread; how many of them were there. */
  #isRead(ids: string[]): number {
    const marked = new Set(ids);
    const read = this.unread.filter(({ id }) => marked.has(id));
    this.#remember(read.map((message) => ({ ...message, status: 'read' as const })));
    this.unread = this.unread.filter(({ id }) => !marked.has(id));
    return read.length;
  }

  #take({ event, data, ...rest }: MessageOf<Channel>): void {
    this.#news++;
    if (event === 'user:notification:read') {
      const read = this.#isRead((data as { messageIds: string[] }).messageIds);
      this.total = Math.max(this.unread.length, this.total - read);
      // Some of them may be beyond what is loaded.
      void this.load();
    } else if (event === 'user:notification:recalled') {
      const { messageId } = data as { messageId: string };
      const recalled = this.unread.find(({ id }) => id === messageId);
      // It may be beyond what is loaded.
      if (!recalled) return void this.load();
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
