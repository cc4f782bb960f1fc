/** Measurements over time in bounded memory: when there are too many, neighbours become one. */

/** As many points as a wide screen has pixels, about. */
const MAX_POINTS = 1_200;

export class Series {
  /** Seconds since the Unix epoch, as charts want them. */
  times: number[] = [];
  /** One list per name, as long as `times`; what was not measured then is `null`. */
  values = new Map<string, (number | null)[]>();
  #step = 0;

  add(timeMs: number, measured: Record<string, number | undefined>): void {
    const time = timeMs / 1000;
    const last = this.times.at(-1);
    // What comes closer together than points are apart takes the place of the one before.
    const replaces = last !== undefined && time - last < this.#step;
    if (!replaces) {
      this.times.push(time);
      for (const list of this.values.values()) list.push(null);
    }
    const at = this.times.length - 1;
    for (const [name, value] of Object.entries(measured)) {
      if (value === undefined || !Number.isFinite(value)) continue;
      let list = this.values.get(name);
      if (!list) this.values.set(name, (list = new Array<null>(this.times.length).fill(null)));
      list[at] = value;
    }
    if (this.times.length > MAX_POINTS) this.#thin();
  }

  of(name: string): (number | null)[] {
    return this.values.get(name) ?? new Array<null>(this.times.length).fill(null);
  }

  latest(name: string): number | undefined {
    return this.values.get(name)?.findLast((value) => value !== null) ?? undefined;
  }

  clear(): void {
    this.times = [];
    this.values.clear();
    this.#step = 0;
  }

  /** Forgets what is older. */
  since(timeMs: number): void {
    const from = this.times.findIndex((time) => time >= timeMs / 1000);
    if (from <= 0) return;
    this.times.splice(0, from);
    for (const list of this.values.values()) list.splice(0, from);
  }

  /** Keeps every second point, the newest among them. */
  #thin(): void {
    const odd = (this.times.length - 1) % 2;
    const keep = <T>(list: T[]) => list.filter((_, i) => i % 2 === odd);
    this.times = keep(this.times);
    for (const [name, list] of this.values) this.values.set(name, keep(list));
    this.#step = (this.times.at(-1)! - this.times[0]!) / this.times.length;
  }
}
