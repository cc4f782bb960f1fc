# A suite that passes: it looks at the tools of this machine and tells its results as TAP.
n=0
check() {
  n=$((n + 1))
  name=$1
  shift
  if "$@"; then echo "ok $n - $name"; else echo "not ok $n - $name"; fi
  sleep 0.25
}
sorts() { [ "$(printf 'b\na\nc\n' | sort | tr -d '\n')" = abc ]; }
counts() { [ "$(printf 'x\ny\n' | wc -l | tr -d ' ')" = 2 ]; }
replaces() { [ "$(echo tests | sed s/tests/tidings/)" = tidings ]; }
adds() { [ "$(awk 'BEGIN { print 19 + 23 }')" = 42 ]; }
writes() { f=$(mktemp) && echo news >"$f" && [ "$(cat "$f")" = news ] && rm "$f"; }
finds() { [ -n "$(ls)" ]; }
cuts() { [ "$(echo a:b:c | cut -d: -f2)" = b ]; }
dates() { [ "$(date +%Y)" -ge 2024 ]; }
compares() { [ 10 -gt 9 ]; }
pipes() { [ "$(echo abc | tr a-c A-C)" = ABC ]; }

echo "TAP version 13"
echo "1..10"
check "sort puts lines in order" sorts
check "wc counts lines" counts
check "sed replaces a word" replaces
check "awk adds" adds
check "a file keeps what was written" writes
check "ls finds this suite" finds
check "cut takes a field" cuts
check "the clock is set" dates
check "numbers compare as numbers" compares
check "tr translates" pipes
