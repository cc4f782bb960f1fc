-- Notes what a running attempt tells. ARGV: publish, job, fence, lease in ms, how much may be untold, then kind,
-- payload and percent of each report.
local job = leased(ARGV[2], ARGV[3])
if not job then return { 'lost' } end
if not has_room(job, (#ARGV - 5) / 3, tonumber(ARGV[5])) then return { 'full' } end
redis.call('ZADD', R .. ':lease', int(now + tonumber(ARGV[4])), job.id)
for i = 6, #ARGV, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
local answer = save(job)
told_later()
return { 'ok', answer }
