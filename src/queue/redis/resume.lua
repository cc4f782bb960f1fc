-- Goes on with an attempt that somebody outside holds, or begins the next one where its lease ran out. ARGV: publish,
-- job, fence, test, secret, the next secret.
local job = held(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if not job or not job.hold then return { 'lost' } end
if job.state == 'running' then
  redis.call('ZADD', R .. ':lease', int(now + tonumber(job.hold)), job.id)
  return { 'existing', flat(job) }
end
if not was_lost(job) then return { 'lost' } end
local active = redis.call('HGET', R .. ':active', job.test)
if active then return { 'active', active } end
local holder = job.worker
begin_again(job)
note(job, 'added', job.queued, int(depth()))
job.worker, job.started, job.secret = holder, int(now), ARGV[6]
begin(job)
arrive(job, tonumber(job.hold))
note(job, 'started', nil, int(depth()))
settle()
return { 'added', save(job, 'run', 'ended', 'error', 'reason', 'by') }
