// A server that is not ours, so that only the proxy before it decides; and plain requests.
import { once } from 'node:events';
import { createServer, request } from 'node:http';

/** Says what it was sent, and streams when it is told to: `{ urls, streams, stop() }`. */
export async function startEcho() {
  const streams = [];
  const server = createServer((incoming, answer) => {
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
  return { urls: [url, url, url], streams, stop };
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
