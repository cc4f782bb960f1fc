#!lua
-- Begins tests anew, each only if its snapshot is still the one that was decided on.
--
-- KEYS  per test its channel's meta, history, ids and snapshot; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, a new epoch, number of tests
--       per test: version, snapshot, test, state
-- In a cluster the index is on another server, and is told by another script.
-- The answer: per test -1, or the version that it has by now; and the snapshot of that version.
local index = KEYS[tonumber(ARGV[4]) * 4 + 1]
local answer = {}
for n = 1, tonumber(ARGV[4]) do
  local at, key = n * 4 + 1, n * 4 - 3
  local meta, snapshot = KEYS[key], KEYS[key + 3]
  local stored = redis.call('HMGET', snapshot, 'version', 'text')
  local version = stored[1] or '0'
  if version ~= ARGV[at] then
    answer[#answer + 1] = tonumber(version)
    answer[#answer + 1] = stored[2] or ''
  else
    if redis.call('HEXISTS', meta, 'epoch') == 0 then
      redis.call('DEL', KEYS[key + 1], KEYS[key + 2])
      redis.call('HSET', meta, 'epoch', ARGV[3] .. n, 'top', 0, 'oldest', 1)
      redis.call('PEXPIRE', meta, ARGV[2])
    end
    redis.call('HSET', snapshot, 'version', version + 1, 'text', ARGV[at + 1])
    redis.call('PEXPIRE', snapshot, ARGV[2])
    if index then
      -- Newest first is how tests are listed, and this one is new again.
      local test, state = ARGV[at + 2], ARGV[at + 3]
      local seq = redis.call('INCR', index)
      for _, other in ipairs({'scheduled', 'queued', 'running', 'retrying', 'completed', 'failed', 'cancelled'}) do
        if other ~= state then redis.call('ZREM', index .. other, test) end
      end
      redis.call('ZADD', index .. 'all', seq, test)
      redis.call('ZADD', index .. state, seq, test)
      redis.call('ZADD', index .. 'seen', ARGV[1], test)
    end
    answer[#answer + 1] = -1
    answer[#answer + 1] = ''
  end
end
return answer
