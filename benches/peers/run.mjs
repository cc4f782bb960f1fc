#!/usr/bin/env node
// Runs tidings and the servers that it is compared with on the same work, in turn, and prints the ratios.
//
// Builds what it needs, unless it is told where the programs are. Each measurement has a fresh server; the sides of
// a row take turns, because a machine is not the same from minute to minute, and the medians are compared.
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { facts, inWords, openFiles } from './facts.mjs';
import { measure } from './measure.mjs';
import { judge, table } from './table.mjs';
import { FULL, QUICK, rows, within, withoutGoals } from './workloads.mjs';

const HELP = `usage: benches/peers/run.mjs [options]
  --rounds N       how often each row is measured [3]
  --only 1,3       only these rows
  --long           ten minutes of sustained load, not one
  --quick          a smoke run: everything once, tiny; its figures mean nothing
  --json FILE      keep the raw results
  --tidings PATH   the program; built in release mode without this
  --floor PATH     the same, of the floor`;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
// Beside the connections, what a server or the load tool keeps open.
const SPARE_FILES = 200;

const say = (text) => process.stderr.write(`${text}\n`);

// Servers and directories are cleared away when this process ends, which a signal alone would not let it do.
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]) {
  process.on(signal, () => process.exit(code));
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string' },
        only: { type: 'string' },
        long: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        json: { type: 'string' },
        tidings: { type: 'string' },
        floor: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds takes a number from 1');
    return { ...values, rounds };
  } catch (error) {
    say(`${error.message}\n${HELP}`);
    process.exit(2);
  }
}

/** The programs that were named, and release builds of the others. */
function programs({ tidings, floor }) {
  const target = resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target', 'release');
  // Apart from each other: what only the example needs must not find its way into the program.
  const build = (...what) => {
    say(`building ${what.join(' ')}`);
    execFileSync('cargo', ['build', '--quiet', '--release', ...what], { cwd: ROOT, stdio: 'inherit' });
  };
  if (!tidings) build('--bin', 'tidings');
  if (!floor) build('--example', 'floor');
  return {
    tidings: tidings ? resolve(tidings) : join(target, 'tidings'),
    floor: floor ? resolve(floor) : join(target, 'examples', 'floor'),
  };
}

function chosen(all, only) {
  if (!only) return all;
  const ids = only.split(',').map((id) => id.trim());
  const unknown = ids.filter((id) => !all.some((row) => row.id === id));
  if (unknown.length > 0) {
    say(`there is no row ${unknown.join(', ')}; there are ${all.map(({ id }) => id).join(', ')}`);
    process.exit(2);
  }
  return all.filter(({ id }) => ids.includes(id));
}

/** Measures all rounds of a row: `{ row, results, figures }`, or `{ row, error }`. */
async function compare(row, { rounds, ...context }) {
  const results = row.sides.map(() => []);
  const times = row.once ? 1 : rounds;
  try {
    for (let round = 1; round <= times; round += 1) {
      for (const [i, side] of row.sides.entries()) {
        say(`${row.id}: ${row.work}: ${side.name}, round ${round} of ${times}`);
        results[i].push(await measure(side, context));
      }
    }
    return { row, results, figures: judge(row, results) };
  } catch (error) {
    say(`row ${row.id} failed: ${error.message}`);
    return { row, results, error: error.message };
  }
}

/** What keeps the table from being the whole truth. */
function remarks(outcomes, redis) {
  const remarks = outcomes.flatMap(({ row }) => row.notes.map((note) => `row ${row.id}: ${note}`));
  for (const { row, results, error } of outcomes) {
    if (error) remarks.push(`row ${row.id} could not be measured: ${error.split('\n')[0]}`);
    for (const [i, side] of row.sides.entries()) {
      const unsound = results[i].filter(({ sound }) => !sound);
      if (unsound.length === 0) continue;
      const { lost, duplicated, misordered, failed_clients: failed, faults = [] } = unsound[0];
      const what = `${lost} lost, ${duplicated} doubled, ${misordered} out of order, ${failed} clients failed`;
      remarks.push(`row ${row.id}: ${side.name} did not deliver exactly: ${[what, ...faults].join('; ')}`);
    }
  }
  if (!redis) remarks.push('the rows with Redis were skipped: there is no redis-server on PATH');
  return remarks;
}

async function main() {
  const wanted = options();
  if (wanted.help) return console.log(HELP);
  if (process.platform !== 'linux') throw new Error('only Linux tells what a process costs (/proc)');
  const hasRedis = spawnSync('redis-server', ['--version']).status === 0;
  const all = rows(wanted.quick ? QUICK : FULL, { long: wanted.long, redis: hasRedis });
  const most = openFiles() - SPARE_FILES;
  const work = chosen(wanted.quick ? all.map(withoutGoals) : all, wanted.only).map((row) => within(row, most));
  execFileSync(join(ROOT, 'tests/setup'), { stdio: ['ignore', 'ignore', 'inherit'] });
  const context = { rounds: wanted.rounds, programs: programs(wanted) };
  const before = facts(wanted.tidings !== undefined);
  const outcomes = [];
  for (const row of work) outcomes.push(await compare(row, context));
  const noted = remarks(outcomes, hasRedis);
  if (wanted.json) writeFileSync(wanted.json, `${JSON.stringify({ ...before, outcomes, remarks: noted }, null, 2)}\n`);
  console.log(`${inWords(before)}\n\n${table(outcomes)}`);
  for (const remark of noted) console.log(`- ${remark}`);
  if (wanted.quick) console.log('- a smoke run: these figures mean nothing');
  // Goals are for people to look at; what could not be measured is a failure.
  const failed = outcomes.some(({ error, results }) => error || results.flat().some(({ sound }) => !sound));
  process.exitCode = failed ? 1 : 0;
}

main().catch((error) => {
  say(error.stack);
  process.exit(1);
});
