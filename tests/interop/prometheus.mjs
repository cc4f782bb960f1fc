// Debian's Prometheus on a free port, in a directory of its own, with our example of a configuration and our rules.
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { directory, freePort, startDaemon } from './daemon.mjs';
import { RULES, SCRAPE_EXAMPLE } from './grafana.mjs';

export const SCRAPE_S = 0.25;

/** Resolves to a Prometheus that scrapes `targets` (addresses): `{ get(path, parameters), stop() }`. */
export async function startPrometheus(targets) {
  const [dir, port] = [await directory('prometheus'), await freePort()];
  const example = await readFile(SCRAPE_EXAMPLE, 'utf8');
  const config = example
    .replaceAll(/_interval: 15s/g, `_interval: ${SCRAPE_S * 1000}ms`)
    .replace(/- targets: .*/, `- targets: ${JSON.stringify(targets)}`);
  await writeFile(join(dir, 'prometheus.yml'), config);
  await writeFile(join(dir, basename(RULES)), await readFile(RULES));
  const daemon = await startDaemon(
    ['prometheus', `--config.file=${join(dir, 'prometheus.yml')}`, `--storage.tsdb.path=${join(dir, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`, '--log.level=warn'],
    { dir, port },
  );
  /** The `data` of an answer of its API. */
  const get = async (path, parameters = {}) => {
    const url = `http://127.0.0.1:${port}/api/v1/${path}?${new URLSearchParams(parameters)}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
    const answer = await response.json();
    if (answer.status !== 'success') throw new Error(`${path} ${JSON.stringify(parameters)}: ${JSON.stringify(answer)}`);
    return answer.data;
  };
  return { ...daemon, get };
}
