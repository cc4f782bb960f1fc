-- Removes ended jobs. ARGV: publish, how long they are kept in ms, how many are kept, how many are removed at most.
local most = tonumber(ARGV[4])
local function remove(id)
  local key = R .. ':j:' .. id
  local job = load(id)
  if job then
    for field in pairs(job) do
      -- What is untold is told first.
      if string.sub(field, 1, 2) == 'o:' then return 0 end
    end
    redis.call('ZREM', R .. ':all', id)
    redis.call('ZREM', R .. ':s:' .. job.state, id)
    if job.key and redis.call('HGET', R .. ':keys', job.key) == id then redis.call('HDEL', R .. ':keys', job.key) end
    redis.call('DEL', key)
  end
  redis.call('ZREM', R .. ':ended', id)
  return 1
end
local removed = 0
local old = redis.call('ZRANGEBYSCORE', R .. ':ended', '-inf', '(' .. int(now - tonumber(ARGV[2])), 'LIMIT', 0, most)
for _, id in ipairs(old) do removed = removed + remove(id) end
local surplus = math.min(redis.call('ZCARD', R .. ':ended') - tonumber(ARGV[3]), most - #old)
if surplus > 0 then
  for _, id in ipairs(redis.call('ZRANGE', R .. ':ended', 0, surplus - 1)) do removed = removed + remove(id) end
end
return removed
