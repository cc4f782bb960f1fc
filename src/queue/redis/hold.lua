-- Adds a job whose attempt begins at once, or finds the one that has its key. ARGV: publish, id, test, type, priority,
-- holder, lease in ms, secret, when it began or nothing, key or nothing, config, then further fields and their values.
local id, test, key = ARGV[2], ARGV[3], ARGV[10]
-- The way to a cluster asks again where it got no answer.
local begun = load(id)
if begun then return { 'added', whole(begun) } end
if key ~= '' then
  local known = redis.call('HGET', R .. ':keys', key)
  local job = known and load(known)
  if job and job.hold then return { 'existing', whole(job) } end
  if job then return { 'active', job.id } end
end
local active = redis.call('HGET', R .. ':active', test)
if active and in_the_way(active) then return { 'active', active } end
local job = {
  id = id, test = test, type = ARGV[4], prio = ARGV[5], max = '1', config = ARGV[11],
  seq = int(redis.call('INCR', R .. ':seq')), created = now_ms, queued = now_ms, hold = ARGV[7], secret = ARGV[8],
  state = 'queued', attempt = '0', base = '0', fence = '0', eseq = '0', cancel = '0',
}
for i = 12, #ARGV, 2 do job[ARGV[i]] = ARGV[i + 1] end
if key ~= '' then
  job.key = key
  redis.call('HSET', R .. ':keys', key, id)
end
made(job)
redis.call('ZADD', R .. ':all', job.seq, id)
note_added(job, active)
set(job, 'worker', ARGV[6])
set(job, 'started', ARGV[9] ~= '' and ARGV[9] or now_ms)
begin(job)
arrive(job, tonumber(job.hold))
note(job, 'started', nil, int(depth()))
local answer = save(job)
settle()
has_test(job)
return { 'added', answer }
