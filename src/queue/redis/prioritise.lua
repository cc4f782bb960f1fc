-- Gives a job that waits another priority. ARGV: publish, job, priority.
local job = load(ARGV[2])
if not job then return { 'missing' } end
if job.state ~= 'queued' and job.state ~= 'scheduled' and job.state ~= 'retrying' then return { 'busy', job.state } end
if job.prio == ARGV[3] then return { 'same', flat(job) } end
job.prio = ARGV[3]
if job.state == 'queued' then put_in(R .. ':r:' .. lane_of(job), rank(job), job.id) end
note(job, 'updated', job.prio)
settle()
return { 'ok', save(job) }
