/** What `/metrics` says, as numbers: counters become rates, histograms quantiles of what happened between two looks. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** One look at the metrics. */
export class Look {
  #byName = new Map<string, Sample[]>();

  constructor(
    text: string,
    readonly at: number,
  ) {
    for (const line of text.split('\n')) {
      if (!line || line.startsWith('#')) continue;
      const [, name, inside = '', value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
      if (!name) continue;
      const labels: Record<string, string> = {};
      for (const [, label, text] of inside.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[label!] = text!;
      const sample = { name, labels, value: value === '+Inf' ? Infinity : Number(value) };
      const list = this.#byName.get(name);
      if (list) list.push(sample);
      else this.#byName.set(name, [sample]);
    }
  }

  /** The samples of `name` whose labels are those of `where`. */
  all(name: string, where: Record<string, string> = {}): Sample[] {
    const fits = ({ labels }: Sample) => Object.entries(where).every(([label, value]) => labels[label] === value);
    return (this.#byName.get(name) ?? []).filter(fits);
  }

  /** Their sum; nothing where there is no such metric. */
  sum(name: string, where?: Record<string, string>): number | undefined {
    const all = this.all(name, where);
    return all.length ? all.reduce((sum, { value }) => sum + value, 0) : undefined;
  }
}

/** How much a counter rose per second. A counter that went back began anew. */
export function rate(now: Look, before: Look | undefined, name: string, where?: Record<string, string>): number | undefined {
  const [a, b] = [before?.sum(name, where), now.sum(name, where)];
  if (a === undefined || b === undefined || !before) return undefined;
  return (b >= a ? b - a : b) / Math.max(0.001, (now.at - before.at) / 1000);
}

/** The upper bound below which the share `q` of what a histogram counted since `before` lies; interpolated. */
export function quantile(q: number, now: Look, before: Look | undefined, name: string, where?: Record<string, string>): number | undefined {
  const counts = new Map<number, number>();
  const add = (look: Look | undefined, sign: number) => {
    for (const { labels, value } of look?.all(`${name}_bucket`, where) ?? []) {
      const le = labels.le === '+Inf' ? Infinity : Number(labels.le);
      counts.set(le, (counts.get(le) ?? 0) + sign * value);
    }
  };
  add(now, 1);
  add(before, -1);
  const buckets = [...counts].sort(([a], [b]) => a - b);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return undefined;
  let [low, below] = [0, 0];
  for (const [le, count] of buckets) {
    if (count >= q * total) return le === Infinity ? low : low + (le - low) * ((q * total - below) / Math.max(1, count - below));
    [low, below] = [le, count];
  }
  return undefined;
}

/** The mean of what a histogram counted since `before`. */
export function mean(now: Look, before: Look | undefined, name: string, where?: Record<string, string>): number | undefined {
  const [sum, count] = [rate(now, before, `${name}_sum`, where), rate(now, before, `${name}_count`, where)];
  return sum !== undefined && count ? sum / count : undefined;
}
