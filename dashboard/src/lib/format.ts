/** Numbers and times as people read them; of a stable width where they change. */

const THIN = '\u202f';

/** `4 s`, `3 min 20 s`, `2 h 5 min`. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s}${THIN}s`;
  const min = Math.floor(s / 60);
  if (min < 10) return `${min}${THIN}min ${String(s % 60).padStart(2, '0')}${THIN}s`;
  if (min < 60) return `${min}${THIN}min`;
  const h = Math.floor(min / 60);
  return h < 48 ? `${h}${THIN}h ${String(min % 60).padStart(2, '0')}${THIN}min` : `${Math.floor(h / 24)}${THIN}d ${h % 24}${THIN}h`;
}

/** How long something took, exact where it was short. */
export function took(ms: number): string {
  return ms < 10_000 ? `${(Math.max(0, ms) / 1000).toFixed(1)}${THIN}s` : span(ms);
}

/** What is left, as a range: `1 – 2 min left`. */
export function left(low: number, high: number): string {
  if (high <= 0) return 'any moment now';
  const [a, b] = [coarse(Math.max(0, low)), coarse(high)];
  if (a === b) return `${b} left`;
  const unit = b.slice(b.indexOf(THIN));
  return `${a.endsWith(unit) ? a.slice(0, -unit.length) : a}${THIN}–${THIN}${b} left`;
}

function coarse(ms: number): string {
  if (ms < 90_000) return `${Math.round(ms / 1000)}${THIN}s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)}${THIN}min`;
  return `${(ms / 3_600_000).toFixed(1)}${THIN}h`;
}

/** The time of the day, with the date where that is another day than `now`. */
export function clock(ms: number, now = Date.now()): string {
  const date = new Date(ms);
  const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  const isToday = date.toDateString() === new Date(now).toDateString();
  return isToday ? time : `${date.toLocaleDateString([], { day: 'numeric', month: 'short' })} ${time}`;
}

const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** `12,345` and `1.2M`. */
export function count(n: number, maximumFractionDigits = 0): string {
  return Math.abs(n) < 100_000 ? n.toLocaleString('en', { maximumFractionDigits }) : short.format(n);
}

/** Three digits that matter. */
export function measure(n: number): string {
  if (!Number.isFinite(n)) return '–';
  const size = Math.abs(n);
  if (size === 0) return '0';
  if (size < 0.01) return n.toExponential(0);
  return size < 10 ? n.toFixed(size < 1 ? 2 : 1) : count(n);
}

export function percent(n: number): string {
  return `${Math.floor(n)}${THIN}%`;
}

/** `3 jobs`, `1 job`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** What there is of `parts`, separated. */
export function facts(...parts: (string | false | 0 | undefined | null)[]): string {
  return parts.filter(Boolean).join(' · ');
}

/** A text of the server, which marks names as Markdown does. */
export function quoted(text: string): string {
  return text.replace(/`([^`]*)`/g, '“$1”');
}
