-- Reads jobs. ARGV: publish, state or nothing for any, the number before which they stand or nothing, how many at
-- most; or with a fifth, that job alone.
-- The answer: the jobs, what workers handle, how many were looked at, and the number of the last of these.
local jobs, waits = {}, false
local function shown(job)
  for field in pairs(job) do
    if string.sub(field, 1, 2) == 'o:' then job[field] = nil end
  end
  waits = waits or job.state == 'queued'
  return flat(job)
end
if ARGV[5] then
  local job = load(ARGV[5])
  return { { job and shown(job) }, handled(waits and 'queued') }
end
local key = ARGV[2] == '' and R .. ':all' or R .. ':s:' .. ARGV[2]
local before = ARGV[3] == '' and '+inf' or '(' .. ARGV[3]
local found = redis.call('ZREVRANGEBYSCORE', key, before, '-inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[4]))
for n = 1, #found, 2 do jobs[#jobs + 1] = look(found[n], shown) end
return { and_unreadable(jobs), handled(waits and 'queued'), #found / 2, found[#found] or '' }
