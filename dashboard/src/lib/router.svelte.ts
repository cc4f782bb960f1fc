/** Deep links: everything behind the `#`, so that no server and no proxy has to know of them. */

export type Route =
  | { view: 'now' | 'server' | 'inbox' }
  | { view: 'queue'; state: string; search: string }
  | { view: 'test'; testId: string };

function read(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = path.split('/');
  const asked = new URLSearchParams(query);
  if (view === 'tests' && rest[0]) return { view: 'test', testId: decode(rest[0]) };
  if (view === 'queue') return { view, state: asked.get('state') ?? '', search: asked.get('search') ?? '' };
  if (view === 'server' || view === 'inbox') return { view };
  return { view: 'now' };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

let current = $state.raw<Route>(read());
addEventListener('hashchange', () => (current = read()));

export const router = {
  get route(): Route {
    return current;
  },
  /** Goes on without a new entry in the browser's history: for filters. */
  replace(link: string): void {
    history.replaceState(null, '', link);
    current = read();
  },
};

export const links = {
  now: '#/',
  server: '#/server',
  inbox: '#/inbox',
  queue: (state = '', search = '') => {
    const query = new URLSearchParams({ ...(state && { state }), ...(search && { search }) }).toString();
    return `#/queue${query && `?${query}`}`;
  },
  test: (testId: string) => `#/tests/${encodeURIComponent(testId)}`,
};
