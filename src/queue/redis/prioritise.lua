-- Gives a job that waits another priority. ARGV: publish, job, priority, how much may be untold of a job.
local job = load(ARGV[2])
if not job then return { 'missing' } end
if job.state ~= 'queued' and job.state ~= 'scheduled' and job.state ~= 'retrying' then return { 'busy', job.state } end
if job.prio == ARGV[3] then return { 'same', whole(job) } end
if not has_room(job, 1, tonumber(ARGV[4])) then return { 'full' } end
set(job, 'prio', ARGV[3])
if job.state == 'queued' then
  depart(job)
  arrive(job)
end
note(job, 'updated', job.prio)
local answer = save(job)
settle()
return { 'ok', answer }
