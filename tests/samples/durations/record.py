#!/usr/bin/env python3
"""Records how long the steps of real jobs take, run after run, on the machine where it is run.

    record.py RUNS TEST_BINARY > recorded.json

Each job has ten steps; of each run it writes when each of them ended, in ms from its start. TEST_BINARY is the
program of the unit tests of this crate; ten of its parts are the steps of the job `unit tests`.
"""
import json, os, random, subprocess, sys, tempfile, time

RUNS, BINARY = int(sys.argv[1]), sys.argv[2]
PARTS = ["model", "config", "fanout", "store::pack", "worker::runner::parse", "listener", "queue", "presence",
         "limits", "worker::progress"]
FILE = tempfile.NamedTemporaryFile()
FILE.write(os.urandom(3_000_000) + b"tidings" * 400_000)
FILE.flush()


def sh(command):
    subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def hashes(step, slow):
    sh(f"sha256sum {FILE.name} {FILE.name}")


def uneven(step, slow):
    """Each step is longer than the one before."""
    sh(f"for n in $(seq {step + 1}); do gzip -1 -c {FILE.name}; done")


def files(step, slow):
    sh("find /usr/share /usr/lib -type f | sort | md5sum")


def two_ways(step, slow):
    """Some runs find their cache, others do not."""
    sh(f"gzip -{6 if slow else 1} -c {FILE.name}")


def tests(step, slow):
    sh(f"{BINARY} {PARTS[step]}::")


def waits(step, slow):
    time.sleep(random.lognormvariate(-4, 0.8))


series = []
for name, step in [("hashes", hashes), ("uneven", uneven), ("files", files), ("two ways", two_ways),
                   ("unit tests", tests), ("waits", waits)]:
    runs = []
    for run in range(RUNS):
        began, ends, slow = time.monotonic(), [], random.random() < 0.4
        for n in range(10):
            step(n, slow)
            ends.append(round((time.monotonic() - began) * 1000))
        runs.append(ends)
    series.append({"name": name, "runs": runs})
print("[")
for n, one in enumerate(series):
    print(f' {{"name": "{one["name"]}", "runs": [')
    print(",\n".join("  " + json.dumps(run) for run in one["runs"]))
    print(" ]}" + ("," if n + 1 < len(series) else ""))
print("]")
