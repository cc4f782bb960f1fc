/** Time for the page: what changes is drawn together, and clocks tick together. */

/** More often nobody can read numbers. */
const DRAW_EVERY_MS = 100;

const waiting = new Set<() => void>();
let asked = false;
let drawn = 0;

/** Has `draw` called with the next drawing, once however often it is asked for. */
export function soon(draw: () => void): void {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  next();
}

function next(): void {
  // A hidden page has no frames; its state must not wait for somebody to look.
  if (document.hidden) setTimeout(run, DRAW_EVERY_MS);
  else requestAnimationFrame(run);
}

function run(): void {
  const now = performance.now();
  if (now - drawn < DRAW_EVERY_MS - 8) return next();
  drawn = now;
  asked = false;
  const all = [...waiting];
  waiting.clear();
  for (const draw of all) draw();
}

let second = $state(Date.now());
let skew = 0;
setInterval(() => (second = Date.now() + skew), 1000);

/** The server's clock, which ticks once a second for whoever shows it. */
export const time = {
  get now(): number {
    return second;
  },
  /** The server's clock is this much ahead of ours. */
  set skew(ms: number) {
    skew = ms;
    second = Date.now() + ms;
  },
};
