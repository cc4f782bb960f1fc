-- Adds jobs, or finds those that have their keys. ARGV: publish, then of each: id, test, type, priority, due time or
-- nothing, key or nothing, number of the fields that it has beside these, these and their values.
-- The answer: what workers handle; then of each 'added' with number, now in ms, number of the change, state, what its
-- note says of how many wait, and since when it waits, or 'existing' or 'again' and the job, or 'active' and who runs its test, or 'broken' and why.
local asked, tests, at = {}, {}, 2
while at <= #ARGV do
  local fields = tonumber(ARGV[at + 6])
  asked[#asked + 1] = {
    id = ARGV[at], test = ARGV[at + 1], type = ARGV[at + 2], prio = ARGV[at + 3], run = ARGV[at + 4], key = ARGV[at + 5],
    from = at + 7, upto = at + 6 + 2 * fields,
  }
  -- Of a suite, that is its last field.
  if ARGV[at + 5 + 2 * fields] == 'lane' then asked[#asked].lane = ARGV[at + 6 + 2 * fields] end
  tests[#tests + 1] = ARGV[at + 1]
  at = at + 7 + 2 * fields
end
local active, owners, keys = redis.call('HMGET', R .. ':active', unpack(tests)), {}, {}
for n, test in ipairs(tests) do owners[test] = active[n] end

local answers, added, new = {}, {}, {}
for n, job in ipairs(asked) do
  local owner = owners[job.test]
  local known = job.key ~= '' and (keys[job.key] or redis.call('HGET', R .. ':keys', job.key))
  if known and not keys[job.key] and redis.call('EXISTS', R .. ':j:' .. known) == 0 then known = nil end
  if known then
    -- It may be one of this call, which is not written yet.
    answers[n] = { 'existing', known }
  elseif owner == job.id then
    -- The way to a cluster asks again where it got no answer.
    answers[n] = { 'again', job.id }
  elseif owner and (new[owner] or in_the_way(owner)) then
    answers[n] = { 'active', owner }
  else
    job.before, owners[job.test], new[job.id] = owner, job.id, true
    if job.key ~= '' then keys[job.key] = job.id end
    added[#added + 1], job.n = job, n
  end
end

local all, running, named = {}, {}, {}
if #added > 0 then
  local now_us_text = int(now_us)
  local waiting, seq = depth(), redis.call('INCRBY', R .. ':seq', #added) - #added
  for n, job in ipairs(added) do
    job.seq, job.state = int(seq + n), 'queued'
    local run = ''
    if job.run ~= '' and tonumber(job.run) > now then job.state, run = 'scheduled', job.run end
    if job.state == 'queued' then waiting = waiting + 1 end
    local queued, number, wait = now_ms, now_us_text, int(waiting)
    if job.before then
      local later, own, behind = after(job.before)
      queued, number, wait = int(later), int(own), wait .. behind
    end
    arrive(job)
    put_in(':out', now_ms, job.id .. ' ' .. number)
    all[#all + 1], all[#all + 2] = job.seq, job.id
    running[#running + 1], running[#running + 2] = job.test, job.id
    if job.key ~= '' then named[#named + 1], named[#named + 2] = job.key, job.id end
    local key = R .. ':j:' .. job.id
    redis.call('HSET', key, 'id', job.id, 'test', job.test, 'type', job.type, 'prio', job.prio, 'attempt', '0', 'base', '0',
      'fence', '0', 'cancel', '0', 'seq', job.seq, 'state', job.state, 'created', now_ms, 'queued', queued, 'eseq', number,
      'o:' .. number, '["added","' .. now_ms .. '","' .. job.state .. '","0","' .. run .. '","","","","' .. queued .. '","'
      .. wait .. '"]', unpack(ARGV, job.from, job.upto))
    if run ~= '' then redis.call('HSET', key, 'run', run) end
    answers[job.n] = { 'added', job.seq, now_ms, number, job.state, wait, queued }
  end
  in_steps('ZADD', R .. ':all', all)
  in_steps('HSET', R .. ':active', running)
  in_steps('HSET', R .. ':keys', named)
  settle()
end
for _, answer in ipairs(answers) do
  if answer[1] == 'existing' or answer[1] == 'again' then
    -- By now the others are added: that one cannot be read is its own matter.
    local readable, job = pcall(function() return whole(load(answer[2])) end)
    if readable then answer[2] = job else answer[1], answer[2] = 'broken', reason_of(job) end
  end
end
return { redis.call('HVALS', R .. ':types'), answers }
