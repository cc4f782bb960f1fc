-- Ends an attempt, with what it tells last. ARGV: publish, job, fence, test and secret of a holder outside or nothing,
-- outcome, error, whether it is final, results, shortest and longest back-off in ms, how much may be untold, then kind,
-- payload and percent of each report.
local job = held(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if not job then return { 'lost' } end
if job.state ~= 'running' then
  -- Whoever holds it outside asks again where the answer was lost.
  if ARGV[5] ~= '' and job.ended and not was_lost(job) then return { 'told', flat(job) } end
  return { 'lost' }
end
-- The end is never refused; what else there is to tell is, where too much waits.
if has_room(job, (#ARGV - 12) / 3, tonumber(ARGV[12])) then
  for i = 13, #ARGV, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
end
return { 'ok', end_attempt(job, ARGV[6], ARGV[7], ARGV[8] == '1', ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])) }
