/** Who looks at the page, and the connection to the server. */
import { connect, TidingsError, type Status, type Tidings } from 'tidings-client';
import { time } from './frame.svelte';

const TOKEN = 'tidings.token';
const USER = 'tidings.user';

/** Where the page is served, which may be below a path of a proxy. */
const base = new URL('.', location.href).href.replace(/[?#].*$/, '').replace(/\/$/, '');

/** A link may bring a token; it must not stay in the address, where it is copied with it. */
function tokenOfLink(): void {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token === null) return;
  sessionStorage.setItem(TOKEN, token);
  history.replaceState(null, '', '#/');
}

/** Each tab is a device of its own, and stays one when it is loaded again. */
function device(): string {
  const name = sessionStorage.getItem('tidings.device') ?? `page-${Math.random().toString(36).slice(2, 12)}`;
  sessionStorage.setItem('tidings.device', name);
  return name;
}

class Session {
  /** The connection; another one after somebody else signed in. */
  tidings = $state.raw<Tidings>(undefined as never);
  status = $state.raw<Status>({ state: 'connecting', since: Date.now() });
  /** Who it is, if anybody in particular. */
  userId = $state<string>();
  /** Why a token is asked for; none while there is no need to. */
  wanted = $state.raw<{ code: string; message: string }>();

  constructor() {
    tokenOfLink();
    this.#open();
  }

  get token(): string | undefined {
    return sessionStorage.getItem(TOKEN) ?? undefined;
  }

  signIn(token: string): void {
    sessionStorage.setItem(TOKEN, token.trim());
    this.wanted = undefined;
    this.#open();
  }

  signOut(): void {
    sessionStorage.removeItem(TOKEN);
    localStorage.removeItem(USER);
    this.userId = undefined;
    this.#open();
  }

  /** Who it is, while the server's authentication is off. */
  call(userId: string): void {
    localStorage.setItem(USER, userId.trim());
    this.#open();
  }

  /** Asks the HTTP interface; a token that is not taken any more is asked for again. */
  async ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const { tidings } = this;
    try {
      return await tidings.request<T>(method, path, body, signal);
    } catch (error) {
      const isNewest = tidings === this.tidings;
      if (isNewest && error instanceof TidingsError && error.status === 401) this.wanted = error;
      throw error;
    }
  }

  #open(): void {
    this.tidings?.close();
    const userId = (!this.token && localStorage.getItem(USER)) || undefined;
    const tidings = connect(base, {
      token: () => this.token,
      clientId: device(),
      userId,
      acks: true,
      socket: { transports: ['websocket', 'polling'], tryAllTransports: true },
    });
    this.tidings = tidings;
    tidings.onStatus((status) => {
      if (this.tidings !== tidings) return;
      this.status = status;
      if (status.state === 'refused') this.wanted = status.error;
      if (tidings.session) {
        time.skew = tidings.now() - Date.now();
        this.userId = tidings.session.userId;
        if (status.state === 'live') this.wanted = undefined;
      }
    });
  }
}

export const session = new Session();
// A laptop that wakes up must not wait for the next try.
addEventListener('online', () => session.status.state === 'offline' && session.tidings.connect());
