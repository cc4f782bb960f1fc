// What the package promises about itself: its size, and that its examples are programs.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import ts from 'typescript';

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

test('everything that can be imported says what it is, and so does every member', () => {
  const entries = ['index', 'fold'].map((name) => `${root}/src/${name}.ts`);
  const program = ts.createProgram(entries, { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022, strict: true });
  const checker = program.getTypeChecker();
  const isSaid = (symbol) => symbol.getDocumentationComment(checker).length > 0;
  const isPrivate = (symbol) => symbol.name.startsWith('__#') || symbol.declarations?.some((node) => ts.isPrivateIdentifier(node.name ?? node) || ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private);
  const silent = [];
  let seen = 0;
  for (const entry of entries) {
    for (const named of checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)))) {
      const symbol = named.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(named) : named;
      const [declaration] = symbol.declarations;
      // Written from the server's definitions, with what those say.
      if (declaration.getSourceFile().fileName.endsWith('/types.ts')) continue;
      const members = ts.isClassDeclaration(declaration) || ts.isInterfaceDeclaration(declaration) ? [...(symbol.members?.values() ?? [])] : [];
      const own = members.filter((member) => !isPrivate(member) && !(member.flags & (ts.SymbolFlags.Constructor | ts.SymbolFlags.TypeParameter)));
      for (const part of [symbol, ...own]) {
        seen++;
        if (!isSaid(part)) silent.push(part === symbol ? symbol.name : `${symbol.name}.${part.name}`);
      }
    }
  }
  assert.ok(seen > 40, `${seen} parts`);
  assert.deepEqual(silent, []);
});
