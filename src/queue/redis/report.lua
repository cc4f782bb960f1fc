-- Notes what running attempts tell. ARGV: publish, lease in ms, how much may be untold of a job, then of each: job, fence,
-- test and secret of a holder outside or nothing, number of reports, then kind, payload and percent of each of these.
-- The answer: of each 'ok' and the job, or 'lost', or 'full', or 'broken' and why.
local lease_ms, most = tonumber(ARGV[2]), tonumber(ARGV[3])

-- What the one that stands at `at` tells.
local function report(job, at, reports)
  if not job then return { 'lost' } end
  if not has_room(job, reports, most) then return { 'full' } end
  put_in(':lease', int(now + tonumber(job.hold or lease_ms)), job.id)
  for i = at + 5, at + 3 * reports + 4, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  return { 'ok', save(job) }
end

return each(4, 5, function(at) return leased(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]) end, report)
