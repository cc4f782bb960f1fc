-- Gives back what a worker holds and forgets the worker. ARGV: publish, worker, error, how many at most.
redis.call('HDEL', R .. ':types', ARGV[2])
redis.call('ZREM', R .. ':seen', ARGV[2])
local given = {}
for _, id in ipairs(redis.call('SRANDMEMBER', R .. ':w:' .. ARGV[2], tonumber(ARGV[4]))) do
  local job = look(id, function(job)
    if job.state ~= 'running' or job.worker ~= ARGV[2] then return nil end
    if job.cancel == '1' then return cancelled(job) end
    -- The attempt was cut short by us: it does not count.
    set(job, 'base', int(tonumber(job.base) + 1))
    return retry_later(job, ARGV[3], '', 0)
  end)
  if job then given[#given + 1] = job else let_go(ARGV[2], id) end
end
settle()
return and_unreadable(given)
