-- Reads jobs. ARGV: publish, state or nothing for any, the number before which they stand or nothing, how many at
-- most; or with a fifth, that job alone.
-- The answer: the jobs, what workers handle, of a list how many were looked at and the number of the last of these, then
-- what is held back, and of suites with a limit how many run and how many may.
local jobs, waits, suites = {}, false, {}
local function shown(job)
  for field in pairs(job) do
    if string.sub(field, 1, 2) == 'o:' then job[field] = nil end
  end
  if job.state == 'queued' then
    waits = true
    if job.lane then suites[job.type .. '/' .. job.lane] = true end
  end
  return whole(job)
end
local function paused() return waits and redis.call('HGETALL', R .. ':paused') or {} end
local function limited()
  local found = {}
  for lane in pairs(suites) do
    local limit = redis.call('HGET', R .. ':limits', lane)
    if limit then
      for _, value in ipairs({ lane, redis.call('SCARD', R .. ':l:' .. lane), limit }) do found[#found + 1] = value end
    end
  end
  return found
end
if ARGV[5] then
  local job = load(ARGV[5])
  local found = { job and shown(job) }
  return { found, handled(waits and 'queued'), paused(), limited() }
end
local key = ARGV[2] == '' and R .. ':all' or R .. ':s:' .. ARGV[2]
local before = ARGV[3] == '' and '+inf' or '(' .. ARGV[3]
local found = redis.call('ZREVRANGEBYSCORE', key, before, '-inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[4]))
for n = 1, #found, 2 do jobs[#jobs + 1] = look(found[n], shown) end
return { and_unreadable(jobs), handled(waits and 'queued'), #found / 2, found[#found] or '', paused(), limited() }
