-- Ends attempts whose lease has run out, lets due jobs into the queue, finds what somebody left untold, and forgets
-- workers that went silent. ARGV: publish, how many of each at most, shortest and longest back-off in ms, how
-- long something may be untold, a name for this past should it have none, the name that the caller saw last and when it
-- saw limits set last, then lanes and limits for a Redis that lost them: of one that is as it was, somebody has taken them
-- away.
local most = tonumber(ARGV[2])
local limited = redis.call('GET', R .. ':limited') or '0'
if redis.call('GET', R .. ':born') ~= ARGV[7] or tonumber(limited) < tonumber(ARGV[8]) then
  for i = 9, #ARGV, 2 do
    if redis.call('HSETNX', R .. ':limits', ARGV[i], ARGV[i + 1]) == 1 then lanes[ARGV[i]] = true end
  end
  if tonumber(limited) < tonumber(ARGV[8]) then limited = set_limited(tonumber(ARGV[8])) end
end
local changed, reaped, promoted = {}, 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', R .. ':lease', '-inf', '(' .. now_ms, 'LIMIT', 0, most)) do
  local ended = look(id, function(job)
    if job.state ~= 'running' then return nil end
    -- Names and ids are of an alphabet that needs no escaping.
    local failure = '{"code":"worker_lost","message":"' .. job.worker
      .. ' was lost: no sign of life before the lease ended"}'
    return end_attempt(job, 'failed', failure, false, '', tonumber(ARGV[3]), tonumber(ARGV[4]))
  end)
  if ended then
    changed[#changed + 1] = ended
    reaped = reaped + 1
  else
    take_out(':lease', id)
    free_place(id)
  end
end
settle()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', R .. ':due', '-inf', now_ms, 'LIMIT', 0, most)) do
  local ready = look(id, function(job)
    local first = job.state == 'scheduled'
    if not first and job.state ~= 'retrying' then return nil end
    depart(job)
    set(job, 'state', 'queued')
    arrive(job)
    -- Its test waits for a worker now, not for the clock; no message says so.
    if first then note(job, 'due', job.queued) end
    return save(job)
  end)
  if ready then
    changed[#changed + 1] = ready
    promoted = promoted + 1
  else
    take_out(':due', id)
  end
end
settle()
local untold = {}
local late = redis.call('ZRANGEBYSCORE', R .. ':out', '-inf', int(now - tonumber(ARGV[5])), 'LIMIT', 0, most)
for _, entry in ipairs(late) do
  local id = string.match(entry, '^(%S+) ') or entry
  if untold[id] == nil then
    local job = look(id, whole)
    untold[id] = job ~= nil
    changed[#changed + 1] = job
  end
  -- Whoever else sweeps gives this sweeper the same time to tell it.
  if untold[id] then put_in(':out', now_ms, entry) else take_out(':out', entry) end
end
settle()
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', R .. ':seen', '-inf', now_ms, 'LIMIT', 0, most)) do
  redis.call('ZREM', R .. ':seen', worker)
  redis.call('HDEL', R .. ':types', worker)
end
local due = redis.call('ZRANGE', R .. ':due', 0, 0, 'WITHSCORES')
redis.call('SET', R .. ':born', ARGV[6], 'NX')
return {
  now_ms, reaped, promoted, #late, due[2] or '', redis.call('GET', R .. ':born'), redis.call('GET', R .. ':seq') or '0',
  limited, redis.call('HLEN', R .. ':types'), and_unreadable(changed), redis.call('HGETALL', R .. ':news'),
}
