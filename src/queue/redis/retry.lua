-- Puts an ended job back into the queue. ARGV: publish, job.
local job = load(ARGV[2])
if not job then return { 'missing' } end
if not job.ended then return { 'alive', job.state } end
local active = redis.call('HGET', R .. ':active', job.test)
if active then return { 'active', active, job.test } end
depart(job)
redis.call('HSET', R .. ':active', job.test, job.id)
job.state, job.cancel, job.base = 'queued', '0', job.attempt
for _, field in ipairs({ 'run', 'started', 'ended', 'worker', 'error', 'reason', 'by' }) do job[field] = nil end
-- Never the same twice: by this the test's beginnings are told apart.
job.queued = int(math.max(now, tonumber(job.queued) + 1))
arrive(job)
tell(job, 'added', job.queued, depth())
return { 'ok', save(job, 'run', 'started', 'ended', 'worker', 'error', 'reason', 'by'), handled(job.state) }
