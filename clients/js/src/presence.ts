/** Who is online: a list that is looked up once, and kept by what is told. */
import type { Tidings } from './client.js';
import { tell } from './error.js';
import type { UsersOnline } from './types.js';

const RETRY_MS = 2_000;

/**
 * Calls `changed` with all users that are online and the number of their connections, first and whenever somebody
 * comes or goes, until the returned function is called. (That a user who is online has one device more or less is not
 * told by the server; the number is as new as the last look or message.)
 */
export function watchPresence(
  tidings: Tidings,
  changed: (online: ReadonlyMap<string, number>) => void,
): () => void {
  let online: Map<string, number> | undefined;
  let news: [userId: string, connections: number][] = [];
  let look = 0;
  const load = async () => {
    const mine = ++look;
    online = undefined;
    news = [];
    const all = new Map<string, number>();
    let cursor: string | undefined = '';
    while (cursor !== undefined) {
      const query: string = `limit=1000&cursor=${encodeURIComponent(cursor)}`;
      const page: UsersOnline = await tidings.request<UsersOnline>('GET', `/api/v1/users/online?${query}`);
      if (mine !== look) return;
      for (const { userId, connections } of page.users) all.set(userId, connections);
      cursor = page.next;
    }
    // What happened during the look is newer than what it found.
    for (const [userId, connections] of news) note(all, userId, connections);
    online = all;
    tell(() => changed(all));
  };
  const begin = () => {
    const mine = look + 1;
    load().catch(() => setTimeout(() => mine === look && begin(), RETRY_MS));
  };
  const room = tidings.join('user-presence', {
    // Looked up only when joined, so that nothing falls between the look and the first message.
    joined: ({ recovered }) => (online && recovered) || begin(),
    reset: begin,
    message: ({ data: { userId, connections } }) => {
      if (!online) return void news.push([userId, connections]);
      note(online, userId, connections);
      tell(() => changed(online!));
    },
  });
  return () => {
    look++;
    room.leave();
  };
}

function note(users: Map<string, number>, userId: string, connections: number): void {
  if (connections > 0) users.set(userId, connections);
  else users.delete(userId);
}
