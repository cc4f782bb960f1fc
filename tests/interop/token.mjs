// Tokens as an identity provider would make them, and whether this server asks for any.
import { createHmac } from 'node:crypto';

const SECRET = 'a secret that is long enough for HS256, and that is only known to these tests';
/** Settings of a server that believes these tokens, and takes their end as it is. */
export const believing = { TIDINGS_AUTH__HS256_SECRET: SECRET, TIDINGS_AUTH__LEEWAY: '0s' };

const part = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token of `sub` that ends in `seconds`. */
export function mint(sub, { seconds = 3600, roles = ['admin'], secret = SECRET } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub, roles, iat: now, exp: now + seconds })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Asks HTTP as the bearer of `token`. */
export async function ask(server, token, method, path, body) {
  const response = await fetch(server.url + path, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path} was answered with ${response.status}: ${text}`);
  return JSON.parse(text);
}

/** What `start()` starts with the settings above; nothing where this server knows no authentication. */
export async function withAuthentication(start) {
  try {
    return await start();
  } catch (error) {
    if (/unknown key/.test(error.message)) return undefined;
    throw error;
  }
}
