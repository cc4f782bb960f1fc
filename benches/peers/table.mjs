// Medians, ratios, goals, and the table of them.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * What `results` (for each side, its result of each round) say of the row's figures:
 * `{ what, unit, ours, reference?, ratio?, spread?, goal?, met? }`.
 */
export function judge(row, results) {
  return row.figures.map(({ what, unit, of, goal }) => {
    const [mine, theirs] = results.map((rounds) => rounds.map(of));
    const ours = middle(mine);
    const figure = { what, unit, ours };
    if (theirs) {
      figure.reference = middle(theirs);
      figure.ratio = ours / figure.reference;
      const ratios = mine.map((value, round) => value / theirs[round]);
      figure.spread = [Math.min(...ratios), Math.max(...ratios)];
    }
    if (goal) Object.assign(figure, { goal: inWords(goal, unit), met: isMet(goal, figure) });
    return figure;
  });
}

/** Figures that are yes or no are yes if all are. */
function middle(values) {
  if (values.some((value) => value === null || value === undefined)) return null;
  return typeof values[0] === 'boolean' ? values.every(Boolean) : median(values);
}

/** Unknown where the figure is, or the reference was too little to be measured. */
function isMet(goal, { ours, ratio }) {
  const value = 'ratioAtLeast' in goal || 'ratioAtMost' in goal ? ratio : ours;
  if ('is' in goal) return value === null ? null : value === goal.is;
  if (value === null || !Number.isFinite(value)) return null;
  const [least, most] = [goal.ratioAtLeast ?? goal.atLeast ?? -Infinity, goal.ratioAtMost ?? goal.atMost ?? Infinity];
  return value >= least && value <= most;
}

function inWords(goal, unit) {
  if ('is' in goal) return yesOrNo(goal.is);
  const bound = goal.ratioAtLeast ?? goal.atLeast ?? goal.ratioAtMost ?? goal.atMost;
  const sign = 'ratioAtLeast' in goal || 'atLeast' in goal ? '≥' : '≤';
  if ('atLeast' in goal || 'atMost' in goal) return `${sign} ${bound}${unit && ` ${unit}`}`;
  return bound < 0.4 ? `${sign} 1/${Math.round(1 / bound)}` : `${sign} ${bound}×`;
}

const yesOrNo = (value) => (value ? 'yes' : 'no');

function figureInWords(value, unit) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return yesOrNo(value);
  const space = unit === '' || unit.startsWith('/') ? '' : ' ';
  return `${number(value)}${space}${unit}`;
}

/** Three digits that mean something. */
function number(value) {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en', { maximumFractionDigits: digits });
}

/** There is none to a reference of zero. */
function ratioInWords({ ratio, spread }) {
  if (!Number.isFinite(ratio)) return '–';
  const times = (value) => `${number(value)}×`;
  return spread[0] === spread[1] ? times(ratio) : `${times(ratio)} (${number(spread[0])} to ${number(spread[1])})`;
}

/** A Markdown table of `[{ row, figures?, error? }]`. */
export function table(outcomes) {
  const lines = [['#', 'work', 'figure', 'tidings', 'reference', 'ratio', 'goal', 'met']];
  for (const { row, figures, error } of outcomes) {
    if (error) {
      lines.push([row.id, row.work, 'not measured', '–', '–', '–', '–', '–']);
      continue;
    }
    for (const [i, figure] of figures.entries()) {
      const met = figure.met === undefined ? '' : figure.met === null ? 'unknown' : yesOrNo(figure.met);
      const other = row.sides[1]?.name;
      const reference = other ? `${figureInWords(figure.reference, figure.unit)} (${other})` : '–';
      lines.push([
        i === 0 ? row.id : '',
        i === 0 ? row.work : '',
        figure.what,
        figureInWords(figure.ours, figure.unit),
        reference,
        ratioInWords(figure),
        figure.goal ?? '',
        met,
      ]);
    }
  }
  const width = (column) => Math.max(3, ...lines.map((line) => [...line[column]].length));
  const pad = (text, column) => text + ' '.repeat(width(column) - [...text].length);
  const rendered = lines.map((line) => `| ${line.map(pad).join(' | ')} |`);
  rendered.splice(1, 0, `|${lines[0].map((_, column) => '-'.repeat(width(column) + 2)).join('|')}|`);
  return rendered.join('\n');
}
