-- Puts an ended job back into the queue. ARGV: publish, job.
local job = load(ARGV[2])
if not job then return { 'missing' } end
if job.hold then return { 'outside' } end
if not job.ended then return { 'alive', job.state } end
local active = redis.call('HGET', R .. ':active', job.test)
if active and active ~= job.id and in_the_way(active) then return { 'active', active, job.test } end
begin_again(job)
arrive(job)
settle()
note_added(job, active)
local answer = save(job)
settle()
has_test(job)
return { 'ok', answer, handled(job.state) }
