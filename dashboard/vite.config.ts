import { fileURLToPath } from 'node:url';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

/** A running server, for `npm run dev`. */
const target = process.env.TIDINGS_URL ?? 'http://127.0.0.1:8080';
const proxy = { '/socket.io': { target, ws: true }, '/api': target, '/metrics': target };
const client = (file: string) => fileURLToPath(new URL(`../clients/js/src/${file}.ts`, import.meta.url));

export default defineConfig({
  // Relative, so that the page works below any path of a proxy.
  base: './',
  plugins: [svelte()],
  resolve: {
    alias: [
      // The package itself, not what was built of it: one step less, and what is looked at is what is edited.
      { find: /^tidings-client$/, replacement: client('index') },
      { find: /^tidings-client\/fold$/, replacement: client('fold') },
    ],
  },
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    // The page's policy allows no inlined fonts or scripts.
    assetsInlineLimit: 0,
    // dist/.gitignore stays, so that the directory is there for the build of the server.
    emptyOutDir: false,
  },
  server: { proxy },
  preview: { proxy },
});
