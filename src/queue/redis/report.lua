-- Notes what a running attempt tells. ARGV: publish, job, fence, test and secret of a holder outside or nothing, lease
-- in ms, how much may be untold, then kind, payload and percent of each report.
local job = leased(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if not job then return { 'lost' } end
if not has_room(job, (#ARGV - 7) / 3, tonumber(ARGV[7])) then return { 'full' } end
redis.call('ZADD', R .. ':lease', int(now + tonumber(job.hold or ARGV[6])), job.id)
for i = 8, #ARGV, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
local answer = save(job)
told_later()
return { 'ok', answer }
