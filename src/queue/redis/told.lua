-- Forgets news that were told. ARGV: publish, number of jobs, then of each: id, number of changes, and the fields that these
-- are; then what `R:out` calls all of them.
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  local key, last = R .. ':j:' .. ARGV[at], at + 1 + tonumber(ARGV[at + 1])
  -- That one cannot be read is no matter of the others.
  for i = at + 2, last, 1000 do pcall(redis.call, 'HDEL', key, unpack(ARGV, i, math.min(i + 999, last))) end
  at = last + 1
end
for i = at, #ARGV, 1000 do redis.call('ZREM', R .. ':out', unpack(ARGV, i, math.min(i + 999, #ARGV))) end
return 0
