# A suite with failing tests, so that failures can be seen: two of its expectations are wrong.
n=0
failed=0
expect() {
  n=$((n + 1))
  if [ "$2" = "$3" ]; then
    echo "ok $n - $1"
  else
    failed=$((failed + 1))
    echo "not ok $n - $1"
    echo "  ---"
    echo "  message: expected '$3', got '$2'"
    echo "  ..."
  fi
  sleep 0.35
}
echo "TAP version 13"
echo "1..8"
expect "one and one is two" "$(awk 'BEGIN { print 1 + 1 }')" 2
expect "letters become capitals" "$(echo a | tr a A)" A
expect "rounding is exact" "$(awk 'BEGIN { printf "%.2f", 1.005 }')" 1.01
expect "words are counted" "$(echo one two three | wc -w | tr -d ' ')" 3
expect "sorting knows numbers" "$(printf '10\n9\n' | sort | tr '\n' ' ')" "9 10 "
expect "the first field is found" "$(echo x,y | cut -d, -f1)" x
expect "an empty line is empty" "$(echo | tr -d '\n')" ""
expect "the last line is found" "$(printf 'a\nb\n' | tail -n 1)" b
[ "$failed" -eq 0 ]
