// A test suite that prints TAP, slowly enough to be watched. TESTS is how many, PACE_MS how long each takes, FAIL
// which ones fail (numbers, separated by commas); an argument is a pattern of those that run.
import { setTimeout as pause } from 'node:timers/promises';

const { TESTS = '6', PACE_MS = '150', FAIL = '' } = process.env;
const only = process.argv[2] && new RegExp(`^(${process.argv[2]})$`);
const failing = FAIL.split(',').filter(Boolean).map(Number);
const THINGS = ['cart', 'checkout', 'invoice', 'login', 'search', 'stock', 'refund', 'profile'];
const DEEDS = ['opens', 'keeps its state', 'refuses bad input', 'survives a restart', 'is listed', 'is removed'];

console.log('TAP version 14');
console.log(`1..${TESTS}`);
for (let n = 1; n <= Number(TESTS); n++) {
  const name = `${THINGS[n % THINGS.length]} ${DEEDS[n % DEEDS.length]}`;
  if (only && !only.test(name)) {
    console.log(`ok ${n} - ${name} # SKIP`);
    continue;
  }
  await pause(Number(PACE_MS));
  console.log(`# ${name}: ${(n * 37) % 190} requests, ${(n * 13) % 90} ms`);
  if (!failing.includes(n)) {
    console.log(`ok ${n} - ${name}`);
    continue;
  }
  console.log(`not ok ${n} - ${name}`);
  console.log('  ---');
  console.log(`  message: 'expected status 200, got 503'`);
  console.log(`  at: 'test/${name.split(' ')[0]}.test.js:${n * 7}:12'`);
  console.log('  ...');
}
process.exitCode = failing.length ? 1 : 0;
