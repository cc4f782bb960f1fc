// Writes FILE.br and FILE.gz beside each file that becomes smaller by it, so that the server need not do so for each visitor.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const [dist] = process.argv.slice(2);
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || entry.name.startsWith('.')) continue;
  const path = join(entry.parentPath, entry.name);
  const plain = readFileSync(path);
  const size = { [constants.BROTLI_PARAM_SIZE_HINT]: plain.length };
  const packed = { br: brotliCompressSync(plain, { params: size }), gz: gzipSync(plain, { level: 9 }) };
  for (const [kind, bytes] of Object.entries(packed)) if (bytes.length < plain.length * 0.95) writeFileSync(`${path}.${kind}`, bytes);
}
