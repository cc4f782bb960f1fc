-- Ends an attempt. ARGV: publish, job, fence, outcome, error, whether it is final, results, shortest and longest
-- back-off in ms.
local job = leased(ARGV[2], ARGV[3])
if not job then return { 'lost' } end
return { 'ok', end_attempt(job, ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])) }
