// What the package promises about itself: its size, and that its examples are programs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const MAX_BYTES = 5_000;

test('it takes less than 5 kB in a browser, beside socket.io-client', async () => {
  const { outputFiles } = await build({
    stdin: { contents: `export * from 'tidings-client'; export * from 'tidings-client/fold';`, resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    external: ['socket.io-client'],
    write: false,
  });
  const { length } = gzipSync(outputFiles[0].contents, { level: 9 });
  console.log(`${length} bytes`);
  assert.ok(length < MAX_BYTES, `${length} bytes`);
});

test('the examples of the documentation are correct TypeScript', () => {
  const examples = [...readFileSync(`${root}/README.md`, 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code);
  assert.ok(examples.length >= 4, `${examples.length} examples`);
  const dir = mkdtempSync(`${root}/test/examples-`);
  try {
    examples.forEach((code, i) => writeFileSync(`${dir}/example${i}.ts`, code.includes('export') ? code : `${code}\nexport {};\n`));
    const options = { extends: '../../tsconfig.json', compilerOptions: { noEmit: true, rootDir: '.', noUnusedLocals: false }, include: ['*.ts'] };
    writeFileSync(`${dir}/tsconfig.json`, JSON.stringify(options));
    execFileSync(process.execPath, [`${root}/node_modules/typescript/bin/tsc`, '-p', dir], { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
