-- Goes on with an attempt that somebody outside holds, or begins the next one where its lease ran out. ARGV: publish,
-- job, fence, test, secret, the next secret, which follows from these: by it is known who asks again for the attempt that
-- it began, because the answer was lost.
local function prolonged(word, job)
  redis.call('ZADD', R .. ':lease', int(now + tonumber(job.hold)), job.id)
  return { word, whole(job) }
end
local job = load(ARGV[2])
if not job or not job.hold or job.test ~= ARGV[4] then return { 'lost' } end
if job.secret == ARGV[6] and job.state == 'running' then return prolonged('again', job) end
if job.fence ~= ARGV[3] or job.secret ~= ARGV[5] then return { 'lost' } end
if job.state == 'running' then return prolonged('existing', job) end
if not was_lost(job) then return { 'lost' } end
local active = redis.call('HGET', R .. ':active', job.test)
if active and active ~= job.id and in_the_way(active) then return { 'active', active } end
local holder = job.worker
begin_again(job)
note_added(job, active)
set(job, 'worker', holder)
set(job, 'started', now_ms)
set(job, 'secret', ARGV[6])
begin(job)
arrive(job, tonumber(job.hold))
note(job, 'started', nil, int(depth()))
local answer = save(job)
settle()
has_test(job)
return { 'added', answer }
