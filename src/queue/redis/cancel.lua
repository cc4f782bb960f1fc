-- Cancels a job. ARGV: publish, job, reason or nothing, by whom or nothing.
local job = load(ARGV[2])
if not job then return { 'missing' } end
if job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled' then
  return { 'ended', job.state }
end
if job.cancel ~= '1' then
  set(job, 'cancel', '1')
  if ARGV[3] ~= '' then set(job, 'reason', ARGV[3]) end
  if ARGV[4] ~= '' then set(job, 'by', ARGV[4]) end
end
if job.state ~= 'running' then
  local ended = cancelled(job)
  settle()
  return { 'ok', ended }
end
redis.call('ZADD', R .. ':cancels', job.seq, job.id)
publish('cancel ' .. job.id)
local answer = save(job)
settle()
return { 'ok', answer }
