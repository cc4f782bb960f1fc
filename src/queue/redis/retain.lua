-- Removes ended jobs, those that cannot be read as well. ARGV: publish, how long they are kept in ms, how many are kept,
-- how many are removed at most, then all states. The answer: how many went, and who of them could not be read.
local most = tonumber(ARGV[4])
local tests, gone_jobs = {}, {}
local ENDED = { completed = true, failed = true, cancelled = true }
local function remove(id)
  local job = look(id, function(job)
    for field in pairs(job) do
      -- What is untold is told first.
      if string.sub(field, 1, 2) == 'o:' then return 'untold' end
    end
    return job.state and job or error('`state` is missing')
  end)
  if job == 'untold' then return 0 end
  redis.call('ZREM', R .. ':ended', id)
  if job and not ENDED[job.state] then return 1 end
  if job and job.key and redis.call('HGET', R .. ':keys', job.key) == id then redis.call('HDEL', R .. ':keys', job.key) end
  redis.call('ZREM', R .. ':all', id)
  -- Whatever state it says it has, if it can be read at all.
  for i = 5, #ARGV do
    if not job or job.state == ARGV[i] then redis.call('ZREM', R .. ':s:' .. ARGV[i], id) end
  end
  redis.call('DEL', R .. ':j:' .. id)
  if job and job.test then tests[#tests + 1], gone_jobs[#gone_jobs + 1] = job.test, id end
  return 1
end
local removed = 0
local old = redis.call('ZRANGEBYSCORE', R .. ':ended', '-inf', '(' .. int(now - tonumber(ARGV[2])), 'LIMIT', 0, most)
for _, id in ipairs(old) do removed = removed + remove(id) end
local surplus = math.min(redis.call('ZCARD', R .. ':ended') - tonumber(ARGV[3]), most - #old)
if surplus > 0 then
  for _, id in ipairs(redis.call('ZRANGE', R .. ':ended', 0, surplus - 1)) do removed = removed + remove(id) end
end
-- Of those that had their tests last, nothing is left.
if #tests > 0 then
  local over = {}
  for n, id in ipairs(redis.call('HMGET', R .. ':active', unpack(tests))) do
    if id == gone_jobs[n] then over[#over + 1] = tests[n] end
  end
  in_steps('HDEL', R .. ':active', over)
end
return { removed, unreadable }
