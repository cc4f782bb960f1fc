-- Ends an attempt, with what it tells last. ARGV: publish, job, fence, outcome, error, whether it is final, results,
-- shortest and longest back-off in ms, how much may be untold, then kind, payload and percent of each report.
local job = leased(ARGV[2], ARGV[3])
if not job then return { 'lost' } end
-- The end is never refused; what else there is to tell is, where too much waits.
if has_room(job, (#ARGV - 10) / 3, tonumber(ARGV[10])) then
  for i = 11, #ARGV, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
end
return { 'ok', end_attempt(job, ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])) }
