-- What the queue's scripts share; it stands before each of them. Whoever changes jobs calls `settle` at the end.
--
-- KEYS[1] is the root of all keys of the queue, which have one hash tag. ARGV[1] is the command that publishes.
-- Below the root R:
--   R:j:ID     hash     a job: its state, and what is still to be told of it in fields `o:SEQ`; `hold` (how long it may
--                       be silent, in ms) and `secret` of one that somebody outside of all workers runs
--   R:all      zset     every job by its number;          R:s:STATE  the same for each state
--   R:r:TYPE   zset     who may be claimed: the most urgent first, then the oldest
--   R:r:LANE   zset     the same of one suite, `TYPE/SUITE` (field `lane` of a job has the suite); `/SUITE` stands for it in
--                       R:r:TYPE, ranked as its first, while one of them may be claimed
--   R:l:LANE   set      who runs of one suite;             R:limits  hash  lane -> how many may run at once
--   R:paused   hash     what is held back: `*`, a type or a lane -> since when, by whom, why, as JSON
--   R:news     hash     number -> what is still to be told of a pause
--   R:due      zset     who waits for the clock, by due time
--   R:lease    zset     who runs, by the end of the lease; R:w:WORKER  set  what a worker holds
--   R:cancels  zset     who runs and is to be cancelled
--   R:ended    zset     who has ended, by when
--   R:out      zset     `ID SEQ` of what is still to be told, by when it came about
--   R:active   hash     test -> the job that has not ended; R:keys  hash  dedupe key -> job
--   R:fired:S  zset     the ticks of schedule S that were fired
--   R:past:S   list     the latest runs of series S, newest first;  R:pasts  zset  each series by its latest run
--   R:types    hash     worker -> the test types it handles; R:seen  zset  worker -> when it counts as gone
--   R:seq      string   the number of the newest job;      R:born  string  the name of this past of the queue
--   R:limited  string   when limits of lanes were set last, by the clock, and later each time
-- Time is Redis' own, everywhere.

local R = KEYS[1]
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)
math.randomseed(now_us % 2147483647)

-- A whole number as Redis and Rust read it: Lua would write long ones as 1.7e+15, and Redis itself takes long to write
-- one that it is handed as a number.
local function int(n) return string.format('%d', n) end

-- A call with many arguments, in steps: one takes a limited number. A multiple of two stays together.
local function in_steps(command, key, args)
  for i = 1, #args, 1000 do redis.call(command, key, unpack(args, i, math.min(i + 999, #args))) end
end

-- What of each job is written already, and how it was read.
local written, read = {}, {}

-- The suite of a job from before suites had lanes: its config alone has it.
local function suite_of(job)
  if job.type ~= 'command' or job.hold or not string.find(job.config or '', '"suite"', 1, true) then return nil end
  local read, config = pcall(cjson.decode, job.config)
  local suite = read and type(config) == 'table' and config.suite
  return type(suite) == 'string' and suite ~= '' and #suite <= 256 and suite or nil
end

local function load(id)
  local flat = redis.call('HGETALL', R .. ':j:' .. id)
  if #flat == 0 then return nil end
  local job, known = {}, {}
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    job[field], known[field] = value, value
  end
  job.lane = job.lane or suite_of(job)
  written[job], read[job] = known, flat
  return job
end

-- The rank among those who may be claimed: four priorities above 2^50 numbers, all of them exact in a double.
local function rank(job) return int((4 - tonumber(job.prio)) * 1125899906842624 + tonumber(job.seq)) end

local function publish(text) redis.call(ARGV[1], R .. ':p', text) end

-- What leaves sorted sets and sets and what comes into them, by key, until `settle`: one command for many jobs.
local gone, left, come = {}, {}, {}

local function among(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

local function take_out(key, member)
  local list = among(gone, key)
  list[#list + 1] = member
end

local function put_in(key, score, member)
  local list = among(come, key)
  list[#list + 1], list[#list + 2] = score, member
end

local function let_go(worker, id)
  local list = among(left, R .. ':w:' .. worker)
  list[#list + 1] = id
end

-- The tests of jobs that have ended, and the jobs.
local ended_tests, ended_jobs = {}, {}

-- Lanes in which something has changed.
local lanes = {}

-- Where the job waits: in the lane of its suite, or with all others of its type.
local function lane_of(job)
  if not job.lane then return job.type end
  local lane = job.type .. '/' .. job.lane
  lanes[lane] = true
  return lane
end

-- How many jobs of a lane may begin.
local function room_of(lane)
  local limit = redis.call('HGET', R .. ':limits', lane)
  return limit and tonumber(limit) - redis.call('SCARD', R .. ':l:' .. lane) or math.huge
end

-- Notes that limits were set, no earlier than `known`: whoever has seen a later time than Redis has knows that it went back.
local function set_limited(known)
  local before = tonumber(redis.call('GET', R .. ':limited') or '0')
  local at = int(math.max(before + 1, known, now_us))
  redis.call('SET', R .. ':limited', at)
  return at
end

-- Has a lane stand among what may be claimed of its type, or not: who claims never looks into one that is held back.
local function show(lane)
  local slash = string.find(lane, '/', 1, true)
  local key, member = R .. ':r:' .. string.sub(lane, 1, slash - 1), string.sub(lane, slash)
  local first = redis.call('ZRANGE', R .. ':r:' .. lane, 0, 0, 'WITHSCORES')
  if #first == 0 or room_of(lane) <= 0 or redis.call('HEXISTS', R .. ':paused', lane) == 1 then
    redis.call('ZREM', key, member)
  elseif redis.call('ZADD', key, first[2], member) == 1 and redis.call('ZCARD', key) == 1 then
    publish('ready')
  end
end

-- Takes the job out of whatever its state keeps it in.
local function depart(job)
  local id = job.id
  take_out(R .. ':s:' .. job.state, id)
  if job.state == 'queued' then
    take_out(R .. ':r:' .. lane_of(job), id)
    -- Where those wait that are from before suites had lanes.
    if job.lane then take_out(R .. ':r:' .. job.type, id) end
  elseif job.state == 'scheduled' or job.state == 'retrying' then
    take_out(R .. ':due', id)
  elseif job.state == 'running' then
    take_out(R .. ':lease', id)
    let_go(job.worker, id)
    if job.lane then
      local list = among(left, R .. ':l:' .. lane_of(job))
      list[#list + 1] = id
    end
    if job.cancel == '1' then take_out(R .. ':cancels', id) end
  else
    take_out(R .. ':ended', id)
  end
end

-- Frees the place of a job whose lease is over and that cannot be asked for its lane.
local function free_place(id)
  for _, lane in ipairs(redis.call('HKEYS', R .. ':limits')) do
    if redis.call('SREM', R .. ':l:' .. lane, id) == 1 then lanes[lane] = true end
  end
end

-- Puts the job into whatever its state keeps it in; who has to act on it is woken by `settle`.
local function arrive(job, lease_ms)
  local id = job.id
  put_in(R .. ':s:' .. job.state, job.seq, id)
  if job.state == 'queued' then
    put_in(R .. ':r:' .. lane_of(job), rank(job), id)
  elseif job.state == 'scheduled' or job.state == 'retrying' then
    put_in(R .. ':due', job.run, id)
  elseif job.state == 'running' then
    put_in(R .. ':lease', int(now + lease_ms), id)
    redis.call('SADD', R .. ':w:' .. job.worker, id)
  else
    put_in(R .. ':ended', int(now), id)
    ended_tests[#ended_tests + 1], ended_jobs[#ended_jobs + 1] = job.test, id
  end
end

-- Notes a change that is to be told of, in the job itself: state and news are written at once. Its number rises
-- with the clock too, so that a queue that lost its newest changes never gives a number to something else.
local function text_of(value) return (value == nil or value == '') and '""' or cjson.encode(value) end

local function note(job, kind, payload, extra)
  job.eseq = int(math.max(tonumber(job.eseq) + 1, now_us))
  job['o:' .. job.eseq] = table.concat({
    '[', text_of(kind), ',"', int(now), '","', job.state, '","', job.attempt, '","', job.run or '', '","', job.started or '',
    '","', job.worker or '', '",', text_of(job.error), ',', text_of(payload), ',', text_of(extra), ']',
  })
  -- Found by whoever sweeps, should nobody tell it.
  put_in(R .. ':out', int(now), job.id .. ' ' .. job.eseq)
end

-- Writes what left and what came, and wakes who waits for it.
local function settle()
  for key, list in pairs(gone) do in_steps('ZREM', key, list) end
  for key, list in pairs(left) do in_steps('SREM', key, list) end
  for key, list in pairs(come) do
    in_steps('ZADD', key, list)
    if string.sub(key, 1, #R + 3) == R .. ':r:' and not string.find(key, '/', #R + 4, true) then
      -- Who found nothing looks again; while there is something, nobody has found nothing.
      if redis.call('ZCARD', key) == #list / 2 then publish('ready') end
    elseif key == R .. ':due' then
      local first = redis.call('ZRANGE', key, 0, 0)[1]
      for n = 2, #list, 2 do
        if list[n] == first then publish('due') end
      end
    end
  end
  for lane in pairs(lanes) do show(lane) end
  lanes = {}
  if #ended_tests > 0 then
    local active = redis.call('HMGET', R .. ':active', unpack(ended_tests))
    local over = {}
    for n, id in ipairs(ended_jobs) do
      if active[n] == id then over[#over + 1] = ended_tests[n] end
    end
    in_steps('HDEL', R .. ':active', over)
  end
  gone, left, come, ended_tests, ended_jobs = {}, {}, {}, {}, {}
end

-- Of a list whose entries are so many elements, and end with a member: what is not of the job.
local function without(list, width, id)
  local kept = {}
  for i = width, #list, width do
    if list[i] ~= id and string.sub(list[i], 1, #id + 1) ~= id .. ' ' then
      for n = i - width + 1, i do kept[#kept + 1] = list[n] end
    end
  end
  return kept
end

-- Why a job cannot be read.
local function reason_of(failure) return type(failure) == 'table' and failure.err or tostring(failure) end

-- Does a step of many, whose last act is to save the job `id`. Where it fails the job stays what and where it was, and
-- the others are none the worse.
local function apart(id, step)
  local done, answer = pcall(step)
  if done then return answer end
  for key, list in pairs(gone) do gone[key] = without(list, 1, id) end
  for key, list in pairs(left) do left[key] = without(list, 1, id) end
  for key, list in pairs(come) do come[key] = without(list, 2, id) end
  for n = #ended_jobs, 1, -1 do
    if ended_jobs[n] == id then
      table.remove(ended_jobs, n)
      table.remove(ended_tests, n)
    end
  end
  return nil, reason_of(answer)
end

-- Jobs that could not be read, as if they had a field that says why: who gets them among others logs it.
local unreadable = {}

-- The answer of `step` for a job that something names; nothing where there is none, or where it cannot be read.
local function look(id, step)
  local answer, failure = apart(id, function()
    local job = load(id)
    return job and step(job)
  end)
  if failure then unreadable[#unreadable + 1] = { 'id', id, 'unreadable', failure } end
  return answer
end

-- The list with those that could not be read behind it.
local function and_unreadable(jobs)
  for _, job in ipairs(unreadable) do jobs[#jobs + 1] = job end
  return jobs
end

local function depth() return redis.call('ZCARD', R .. ':s:queued') end

-- Whether so many more changes of a job may be noted.
local function has_room(job, more, most)
  -- Nearly always it does not even have so many fields.
  if #read[job] / 2 + more <= most then return true end
  local waiting = 0
  for field in pairs(job) do
    if string.sub(field, 1, 2) == 'o:' then waiting = waiting + 1 end
  end
  return waiting == 0 or waiting + more <= most
end

local function flat(job)
  local out = {}
  for field, value in pairs(job) do
    out[#out + 1] = field
    out[#out + 1] = value
  end
  return out
end

-- Writes what has changed of a job; `lost` are the fields that it does not have any more. Its fields, those that were
-- written behind those that were read.
local function save(job, ...)
  local key, known, changes, lost = R .. ':j:' .. job.id, written[job] or {}, {}, {}
  for _, field in ipairs({ ... }) do
    job[field] = nil
    if known[field] then lost[#lost + 1] = field end
  end
  for field, value in pairs(job) do
    if known[field] ~= value then changes[#changes + 1], changes[#changes + 2] = field, value end
  end
  in_steps('HSET', key, changes)
  if #lost > 0 or not read[job] then
    in_steps('HDEL', key, lost)
    return flat(job)
  end
  local out = read[job]
  for i = 1, #changes do out[#out + 1] = changes[i] end
  return out
end

-- The job of a lease that is its newest. That of somebody outside has a secret, and names its test.
local function held(id, fence, test, secret)
  local job = load(id)
  if not job or job.fence ~= fence or (job.secret or '') ~= secret then return nil end
  if secret ~= '' and job.test ~= test then return nil end
  return job
end

-- The job of a lease that counts.
local function leased(id, fence, test, secret)
  local job = held(id, fence, test, secret)
  if not job or job.state ~= 'running' then return nil end
  return job
end

-- Whether it ended because nobody gave a sign of life.
local function was_lost(job) return job.state == 'failed' and cjson.decode(job.error).code == 'worker_lost' end

-- A job begins its next attempt, which `job.worker` runs.
local function begin(job)
  job.state = 'running'
  job.attempt = int(tonumber(job.attempt) + 1)
  -- By the clock as well: a queue that lost its newest changes must not give out a token twice.
  job.fence = int(math.max(tonumber(job.fence) + 1, now_us))
  job.error = nil
end

-- An ended job is one that waits again, with all of its attempts.
local AGAIN = { 'run', 'started', 'ended', 'worker', 'error', 'reason', 'by' }
local function begin_again(job)
  depart(job)
  redis.call('HSET', R .. ':active', job.test, job.id)
  job.state, job.cancel, job.base = 'queued', '0', job.attempt
  for _, field in ipairs(AGAIN) do job[field] = nil end
  -- Never the same twice: by this the test's beginnings are told apart.
  job.queued = int(math.max(now, tonumber(job.queued) + 1))
end

local function cancelled(job)
  depart(job)
  job.state, job.ended = 'cancelled', int(now)
  job.error = nil
  note(job, 'cancelled', job.reason or 'cancelled', job.by)
  arrive(job)
  return save(job, 'error')
end

-- The job begins its next attempt after `delay_ms`.
local function retry_later(job, failure, results, delay_ms)
  depart(job)
  job.state, job.error, job.run = 'retrying', failure, int(now + delay_ms)
  note(job, 'retrying', results)
  arrive(job)
  return save(job)
end

-- Ends the running attempt: the job ends, or waits for its next one.
local function end_attempt(job, outcome, failure, final, results, base_ms, max_ms)
  if outcome == 'cancelled' then return cancelled(job) end
  if outcome == 'failed' then
    local attempts = tonumber(job.attempt) - tonumber(job.base)
    if job.cancel == '1' and not final then return cancelled(job) end
    if not final and attempts < tonumber(job.max) then
      -- Doubling, with a jitter of one half: what failed together does not come back together.
      local most = math.floor(math.min(base_ms * 2 ^ math.min(attempts - 1, 30), max_ms))
      return retry_later(job, failure, results, most - math.random(0, math.floor(most / 2)))
    end
  end
  depart(job)
  job.ended = int(now)
  if outcome == 'passed' then
    job.state, job.error = 'completed', nil
    note(job, 'completed', results)
    arrive(job)
    return save(job, 'error')
  end
  job.state, job.error = 'failed', failure
  note(job, 'failed', results)
  arrive(job)
  return save(job)
end

-- What the workers handle, for a job that waits.
local function handled(state)
  if state ~= 'queued' then return {} end
  return redis.call('HVALS', R .. ':types')
end

-- Answers each of those that stand in ARGV from `at` on: `head` values, the last of them the number of reports, then three of
-- each of these. `find` reads the job by its place, `act` does the rest; what fails for one is no matter of the others.
local function each(at, head, find, act)
  local answers = {}
  while at <= #ARGV do
    local reports = tonumber(ARGV[at + head - 1])
    local answer, failure = apart(ARGV[at], function() return act(find(at), at, reports) end)
    answers[#answers + 1] = answer or { 'broken', failure }
    at = at + head + 3 * reports
  end
  settle()
  return answers
end
