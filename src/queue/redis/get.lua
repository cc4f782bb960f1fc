-- Reads jobs. ARGV: publish, state or nothing for any, the number before which they stand or nothing, how many at
-- most; or with a fifth, that job alone.
local jobs, waits = {}, false
local function add(id)
  local job = load(id)
  if not job then return end
  for field in pairs(job) do
    if string.sub(field, 1, 2) == 'o:' then job[field] = nil end
  end
  waits = waits or job.state == 'queued'
  jobs[#jobs + 1] = flat(job)
end
if ARGV[5] then
  add(ARGV[5])
else
  local key = ARGV[2] == '' and R .. ':all' or R .. ':s:' .. ARGV[2]
  local before = ARGV[3] == '' and '+inf' or '(' .. ARGV[3]
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', key, before, '-inf', 'LIMIT', 0, tonumber(ARGV[4]))) do add(id) end
end
return { jobs, handled(waits and 'queued') }
