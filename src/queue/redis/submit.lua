-- Adds a job, or finds the one that has its key. ARGV: publish, id, test, type, priority, attempts, due time or
-- nothing, key or nothing, config, then further fields and their values.
local id, test, key = ARGV[2], ARGV[3], ARGV[8]
if key ~= '' then
  local known = redis.call('HGET', R .. ':keys', key)
  local job = known and load(known)
  if job then return { 'existing', flat(job), handled(job.state) } end
end
local active = redis.call('HGET', R .. ':active', test)
if active then return { 'active', active } end
local job = {
  id = id, test = test, type = ARGV[4], prio = ARGV[5], max = ARGV[6], config = ARGV[9],
  seq = int(redis.call('INCR', R .. ':seq')), created = int(now), queued = int(now),
  state = 'queued', attempt = '0', base = '0', fence = '0', eseq = '0', cancel = '0',
}
if ARGV[7] ~= '' and tonumber(ARGV[7]) > now then job.state, job.run = 'scheduled', ARGV[7] end
for i = 10, #ARGV, 2 do job[ARGV[i]] = ARGV[i + 1] end
if key ~= '' then
  job.key = key
  redis.call('HSET', R .. ':keys', key, id)
end
redis.call('HSET', R .. ':active', test, id)
redis.call('ZADD', R .. ':all', job.seq, id)
arrive(job)
tell(job, 'added', job.queued, depth())
return { 'added', save(job), handled(job.state) }
