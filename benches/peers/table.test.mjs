// The arithmetic between the results and the table.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, median, table } from './table.mjs';
import { FULL, QUICK, rows, within } from './workloads.mjs';

const of = (r) => r.x;
const results = (...sides) => sides.map((values) => values.map((x) => ({ x })));
const judged = (goal, ...sides) => judge({ figures: [{ what: 'x', unit: 'µs', of, goal }] }, results(...sides))[0];

test('the median of an even number of rounds lies between the two in the middle', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([10, 1, 2, 4]), 3);
});

test('a ratio is ours to theirs, of the medians, and its spread is that of the rounds', () => {
  const figure = judged({ ratioAtLeast: 2 }, [10, 30, 20], [5, 10, 20]);
  assert.equal(figure.ours, 20);
  assert.equal(figure.reference, 10);
  assert.equal(figure.ratio, 2);
  assert.deepEqual(figure.spread, [1, 3]);
});

test('a goal is met at its bound and not beyond', () => {
  assert.equal(judged({ ratioAtLeast: 2 }, [20], [10]).met, true);
  assert.equal(judged({ ratioAtLeast: 2 }, [19], [10]).met, false);
  assert.equal(judged({ ratioAtMost: 1 / 2 }, [5], [10]).met, true);
  assert.equal(judged({ ratioAtMost: 1 / 2 }, [6], [10]).met, false);
  assert.equal(judged({ atMost: 18 }, [18]).met, true);
  assert.equal(judged({ atMost: 18 }, [19], [20]).met, false);
  assert.equal(judged({ atLeast: 100 }, [99.9]).met, false);
  assert.equal(judged({ is: true }, [true, true]).met, true);
  assert.equal(judged({ is: true }, [true, false]).met, false);
  assert.equal(judged(undefined, [1], [2]).met, undefined);
});

test('a figure that nobody knows meets no goal and fails none', () => {
  assert.equal(judged({ is: true }, [null]).met, null);
  assert.equal(judged({ atMost: 1 }, [undefined]).met, null);
  assert.equal(judged({ ratioAtMost: 1 }, [1], [0]).met, null);
});

test('the table names what was not measured', () => {
  const row = { id: '7', work: 'some work', sides: [{ name: 'tidings' }, { name: 'floor' }], figures: [] };
  const figures = [judged({ ratioAtMost: 1 / 6 }, [1, 1.25], [12, 10])];
  const lines = table([{ row, figures }, { row, error: 'it burns' }]).split('\n');
  assert.equal(lines.length, 4);
  const cells = (line) => line.split('|').slice(1, -1).map((cell) => cell.trim());
  assert.deepEqual(cells(lines[2]), ['7', 'some work', 'x', '1.13 µs', '11 µs (floor)', '0.1× (0.08 to 0.13)', '≤ 1/6', 'yes']);
  assert.deepEqual(cells(lines[3]).slice(0, 3), ['7', 'some work', 'not measured']);
});

test('a limit of open files cuts connections, and nothing else that has the same number', () => {
  const spread = rows(FULL).find(({ id }) => id === '9');
  const { sides, notes } = within(spread, 5_000);
  const args = sides[0].bench(sides[0].connections).join(' ');
  assert.match(args, /--subscribers 5000 --rooms 5000 --rate 10000/);
  assert.equal(notes.length, 1);
  assert.deepEqual(within(spread, 10_000).notes, []);
});

test('a row is the same work at every size, and its reference bears the same load', () => {
  const [full, quick] = [rows(FULL, { redis: true }), rows(QUICK, { redis: true })];
  assert.deepEqual(full.map(({ id }) => id), quick.map(({ id }) => id));
  for (const { id, sides } of full) {
    if (['2', '5'].includes(id) || sides.length === 1) continue;
    const load = (side) => side.run?.slice(side.run.indexOf('--jobs')) ?? side.bench(side.connections);
    const [ours, theirs] = sides.map(load);
    assert.deepEqual(ours, theirs, `row ${id}`);
  }
});
