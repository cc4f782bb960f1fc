// A small test suite that prints TAP, slowly enough to be watched. With OUTCOME=fail its third test fails.
import { setTimeout as sleep } from 'node:timers/promises';

const NAMES = ['opens', 'reads', 'writes', 'syncs', 'closes'];
const failing = process.env.OUTCOME === 'fail' ? 'writes' : undefined;

console.log('TAP version 14');
console.log(`1..${NAMES.length}`);
for (const [i, name] of NAMES.entries()) {
  await sleep(150);
  if (name !== failing) {
    console.log(`ok ${i + 1} - ${name}`);
    continue;
  }
  console.log(`not ok ${i + 1} - ${name}`);
  console.log('  ---');
  console.log("  message: 'expected 3, got 4'");
  console.log('  ...');
}
process.exitCode = failing ? 1 : 0;
