-- Ends attempts whose lease has run out, lets due jobs into the queue, finds what somebody left untold, and forgets
-- workers that went silent. ARGV: publish, how many of each at most, shortest and longest back-off in ms, how
-- long something may be untold, a name for this past should it have none.
local most = tonumber(ARGV[2])
local changed, reaped, promoted = {}, 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', R .. ':lease', '-inf', '(' .. int(now), 'LIMIT', 0, most)) do
  local job = load(id)
  if job then
    -- Names and ids are of an alphabet that needs no escaping.
    local failure = '{"code":"worker_lost","message":"' .. job.worker
      .. ' was lost: no sign of life before the lease ended"}'
    changed[#changed + 1] = end_attempt(job, 'failed', failure, false, '', tonumber(ARGV[3]), tonumber(ARGV[4]))
    reaped = reaped + 1
  else
    redis.call('ZREM', R .. ':lease', id)
  end
end
settle()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', R .. ':due', '-inf', int(now), 'LIMIT', 0, most)) do
  local job = load(id)
  if job then
    local first = job.state == 'scheduled'
    depart(job)
    job.state = 'queued'
    arrive(job)
    -- Its test waits for a worker now, not for the clock; no message says so.
    if first then note(job, 'due', job.queued) end
    changed[#changed + 1] = save(job)
    promoted = promoted + 1
  else
    redis.call('ZREM', R .. ':due', id)
  end
end
settle()
local untold = {}
local left = redis.call('ZRANGEBYSCORE', R .. ':out', '-inf', int(now - tonumber(ARGV[5])), 'LIMIT', 0, most)
for _, entry in ipairs(left) do
  local id = string.match(entry, '^(%S+) ')
  -- Whoever else sweeps gives this sweeper the same time to tell it.
  redis.call('ZADD', R .. ':out', int(now), entry)
  if not untold[id] then
    untold[id] = true
    local job = load(id)
    if job then changed[#changed + 1] = flat(job) else redis.call('ZREM', R .. ':out', entry) end
  end
end
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', R .. ':seen', '-inf', int(now), 'LIMIT', 0, most)) do
  redis.call('ZREM', R .. ':seen', worker)
  redis.call('HDEL', R .. ':types', worker)
end
local due = redis.call('ZRANGE', R .. ':due', 0, 0, 'WITHSCORES')
redis.call('SET', R .. ':born', ARGV[6], 'NX')
return {
  int(now), reaped, promoted, #left, due[2] or '', redis.call('GET', R .. ':born'), redis.call('GET', R .. ':seq') or '0',
  redis.call('HLEN', R .. ':types'), changed,
}
