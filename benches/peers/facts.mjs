// What a figure depends on beside the programs: the machine, and the versions of everything.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('.', import.meta.url));

/** `named`: the program was not built for this run, so that it may be of any commit and profile. */
export function facts(named) {
  const cpus = os.cpus();
  const overridden = Object.entries(process.env).filter(([key]) => key.startsWith('CARGO_PROFILE_RELEASE_'));
  const profile = ['release', ...overridden.map(([key, value]) => `${key.slice(22).toLowerCase()}=${value}`)].join(' ');
  return {
    at: new Date().toISOString(),
    machine: {
      cpu: cpus[0]?.model.trim() ?? 'unknown',
      cores: cpus.length,
      kernel: `${os.type()} ${os.release()}`,
      memory_gb: Math.round(os.totalmem() / 2 ** 30),
      open_files: openFiles(),
      load_average: os.loadavg().map((load) => Math.round(load * 100) / 100),
    },
    versions: {
      tidings: named ? 'as given' : `${commit()} (${profile})`,
      rustc: first('rustc', '--version')?.replace(/^rustc /, ''),
      node: process.version,
      'socket.io': installed('socket.io'),
      ws: installed('ws'),
      'redis-streams-adapter': installed('@socket.io/redis-streams-adapter'),
      redis: first('redis-server', '--version')?.match(/v=(\S+)/)?.[1] ?? 'not installed',
    },
  };
}

/** The limit of open files, which the servers and the load tool inherit. */
export function openFiles() {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  return soft === 'unlimited' ? Infinity : Number(soft);
}

export function inWords({ at, machine, versions }) {
  const { cpu, cores, kernel, memory_gb, open_files, load_average } = machine;
  return [
    `${at}, ${cores} × ${cpu}, ${memory_gb} GB, ${kernel}, ${open_files} open files, load average ${load_average.join(' ')}`,
    Object.entries(versions).map(([name, version]) => `${name} ${version ?? 'unknown'}`).join(', '),
  ].join('\n');
}

/** The commit, and whether something was changed since. */
function commit() {
  const hash = first('git', 'rev-parse', '--short', 'HEAD');
  const changed = first('git', 'status', '--porcelain', '--untracked-files=no');
  return changed ? `${hash} with changes` : hash;
}

function first(command, ...args) {
  try {
    const text = execFileSync(command, args, { cwd: HERE, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return text.trim().split('\n')[0];
  } catch {
    return undefined;
  }
}

function installed(name) {
  return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), 'utf8')).version;
}
