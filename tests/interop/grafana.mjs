// What stands in `grafana/`, read as the tests need it: dashboards with their expressions, alert rules, names of metrics.
import { readFile, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
export const read = (name) => readFile(path(name), 'utf8');
export const RULES = path('grafana/prometheus/tidings.rules.yml');
export const RULE_TESTS = path('grafana/prometheus/tidings.rules.test.yml');
export const SCRAPE_EXAMPLE = path('grafana/prometheus/prometheus.yml');

/** The dashboards, by their file's name. */
export async function dashboards() {
  const names = (await readdir(path('grafana/dashboards'))).filter((name) => name.endsWith('.json'));
  const texts = await Promise.all(names.map((name) => read(`grafana/dashboards/${name}`)));
  return new Map(names.map((name, n) => [name, JSON.parse(texts[n])]));
}

/** Every expression of a dashboard, with where it stands: panels, annotations and variables. */
export function expressions({ title, panels, annotations, templating }) {
  const of = (kind, where, expr) => ({ kind, where: `${title}: ${where}`, expr });
  return [
    ...panels.flatMap((panel) => (panel.targets ?? []).map(({ refId, expr }) => of('panel', `${panel.title} ${refId}`, expr))),
    ...annotations.list.filter(({ expr }) => expr).map(({ name, expr }) => of('annotation', name, expr)),
    ...templating.list.filter(({ type }) => type === 'query').map(({ name, definition }) => of('variable', name, definition)),
  ];
}

/** The alerts of a rules file of Prometheus, or of Grafana's provisioning: `{ name, expr, for, runbook, severity }`. */
export function alerts(yaml) {
  const lines = yaml.split('\n');
  const found = [];
  for (const [n, line] of lines.entries()) {
    const [, indent, key, value] = /^( *)(?:- )?([a-zA-Z]+): ?(.*)$/.exec(line) ?? [];
    if (['alert', 'title'].includes(key)) found.push({ name: value });
    else if (key === 'expr') {
      const rest = lines.slice(n + 1);
      const end = rest.findIndex((below) => below.search(/\S/) <= indent.length);
      found.at(-1).expr = rest.slice(0, end).map((below) => below.trim()).join(' ');
    } else if (['for', 'runbook', 'severity', 'summary', 'description'].includes(key)) found.at(-1)[key] = value;
  }
  return found;
}

/** The names of metrics that an expression asks for; series of a histogram stand for it. */
export function metricNames(expr, histograms = new Set()) {
  const names = expr.replace(/"[^"]*"/g, '').match(/\b(?:tidings|process)_[a-z_]+/g) ?? [];
  return names.map((name) => {
    const base = name.replace(/_(bucket|sum|count)$/, '');
    return histograms.has(base) ? base : name;
  });
}
