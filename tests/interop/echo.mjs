// A server that is not ours, so that only the proxy before it decides; and plain requests.
import { once } from 'node:events';
import { createServer, request } from 'node:http';

/** Says what it was sent, streams when it is told to, and is `ready` or not: `{ urls, streams, ready, stop() }`. */
export async function startEcho() {
  const streams = [];
  const echo = { streams, ready: true };
  const server = createServer((incoming, answer) => {
    if (!echo.ready) answer.statusCode = 503;
    if (!echo.ready) return answer.end('not ready');
    if (!incoming.url.endsWith('/stream')) return answer.end(JSON.stringify(incoming.headers));
    answer.writeHead(200, { 'content-type': 'text/event-stream' });
    answer.write('data: 1\n\n');
    streams.push(answer);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}`;
  const stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return Object.assign(echo, { urls: [url, url, url], stop });
}

/** A plain request from one of the loopback's addresses: `{ status, headers, text }`. */
export async function ask(url, { address = '127.0.0.1', method = 'GET', headers = {}, body } = {}) {
  const sent = request(url, { method, headers, localAddress: address, agent: false });
  sent.end(body);
  const [answer] = await once(sent, 'response');
  let text = '';
  for await (const chunk of answer.setEncoding('utf8')) text += chunk;
  return { status: answer.statusCode, headers: answer.headers, text };
}
