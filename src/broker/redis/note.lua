-- Tells the lists of tests of a state.
--
-- KEYS  the index of tests
-- ARGV  test, state, version of its snapshot, now in ms, 1 if it begins anew, which makes it the newest
local index, test, state, version = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
-- Of news that cross, the later counts.
if tonumber(redis.call('HGET', index .. 'versions', test) or 0) >= version then return end
redis.call('HSET', index .. 'versions', test, version)
local seq = redis.call('ZSCORE', index .. 'all', test)
if not seq or ARGV[5] == '1' then
  seq = redis.call('INCR', index)
  redis.call('ZADD', index .. 'all', seq, test)
end
for _, other in ipairs({'scheduled', 'queued', 'running', 'retrying', 'completed', 'failed', 'cancelled'}) do
  if other ~= state then redis.call('ZREM', index .. other, test) end
end
redis.call('ZADD', index .. state, seq, test)
redis.call('ZADD', index .. 'seen', ARGV[4], test)
