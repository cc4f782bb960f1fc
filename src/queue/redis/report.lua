-- Notes what a running attempt tells. ARGV: publish, job, fence, lease in ms, how much may be untold, then kind,
-- payload and percent of each report.
local job = leased(ARGV[2], ARGV[3])
if not job then return { 'lost' } end
local untold = 0
for field in pairs(job) do
  if string.sub(field, 1, 2) == 'o:' then untold = untold + 1 end
end
if untold + (#ARGV - 5) / 3 > tonumber(ARGV[5]) and untold > 0 then return { 'full' } end
redis.call('ZADD', R .. ':lease', int(now + tonumber(ARGV[4])), job.id)
local news = {}
for i = 6, #ARGV, 3 do
  tell(job, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  news[#news + 1] = 'o:' .. job.eseq
  news[#news + 1] = job['o:' .. job.eseq]
end
-- In steps: a call takes a limited number of arguments.
for i = 1, #news, 1000 do
  redis.call('HSET', R .. ':j:' .. job.id, unpack(news, i, math.min(i + 999, #news)))
end
redis.call('HSET', R .. ':j:' .. job.id, 'eseq', job.eseq)
return { 'ok', flat(job) }
