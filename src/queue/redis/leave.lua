-- Gives back what a worker holds and forgets the worker. ARGV: publish, worker, error, how many at most.
redis.call('HDEL', R .. ':types', ARGV[2])
redis.call('ZREM', R .. ':seen', ARGV[2])
local given = {}
for _, id in ipairs(redis.call('SRANDMEMBER', R .. ':w:' .. ARGV[2], tonumber(ARGV[4]))) do
  local job = load(id)
  if not job then
    redis.call('SREM', R .. ':w:' .. ARGV[2], id)
  elseif job.cancel == '1' then
    given[#given + 1] = cancelled(job)
  else
    -- The attempt was cut short by us: it does not count.
    job.base = int(tonumber(job.base) + 1)
    given[#given + 1] = retry_later(job, ARGV[3], '', 0)
  end
end
settle()
return given
