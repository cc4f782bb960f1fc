-- The life of a job: who holds it, its attempts, its ends, its next beginning. It stands behind `common.lua`, before each
-- script.

-- Whether the newest job of a test keeps others from it.
local function in_the_way(owner)
  return not redis.call('ZSCORE', R .. ':ended', owner) and redis.call('ZSCORE', R .. ':all', owner)
end

-- The number of the newest change of a job that is untold, if any.
local function newest_untold(id)
  local newest, found = nil, redis.pcall('HKEYS', R .. ':j:' .. id)
  for _, field in ipairs(found.err and {} or found) do
    local number = tonumber(string.match(field, '^o:(%d+)$'))
    if number then newest = math.max(newest or 0, number) end
  end
  return newest
end

-- What the beginning of a job minds of the job that had its test before, if there is one. Its time is later, by this the
-- test's beginnings are told apart, and so is its number. If something of that one is untold, the note of the beginning
-- names it behind the depth, so that it is told first, whoever tells this. The answer: time in ms, number, and these words.
local function after(before)
  local queued, newest = before and redis.pcall('HGET', R .. ':j:' .. before, 'queued'), before and newest_untold(before)
  queued = math.max(now, (type(queued) == 'string' and tonumber(queued) or 0) + 1)
  return queued, math.max(now_us, (newest or 0) + 1), newest and ' ' .. before or ''
end

-- Notes that a job was added, which waits anew.
local function note_added(job, before)
  local queued, number, behind = after(before ~= job.id and before)
  set(job, 'queued', int(math.max(queued, tonumber(job.queued))))
  set(job, 'eseq', int(math.max(tonumber(job.eseq), number - 1)))
  note(job, 'added', job.queued, int(depth()) .. behind)
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
  set(job, 'state', 'running')
  set(job, 'attempt', int(tonumber(job.attempt) + 1))
  -- By the clock as well: a queue that lost its newest changes must not give out a token twice.
  set(job, 'fence', int(math.max(tonumber(job.fence) + 1, now_us)))
  set(job, 'error', nil)
end

-- An ended job is one that waits again, with all of its attempts. The newest of its test it is with `has_test`, at the end.
local function begin_again(job)
  depart(job)
  set(job, 'state', 'queued')
  set(job, 'cancel', '0')
  set(job, 'base', job.attempt)
  for _, field in ipairs({ 'run', 'started', 'ended', 'worker', 'error', 'reason', 'by' }) do set(job, field, nil) end
  -- Never the same twice.
  set(job, 'queued', int(math.max(now, tonumber(job.queued) + 1)))
end

local function has_test(job) redis.call('HSET', R .. ':active', job.test, job.id) end

local function cancelled(job)
  depart(job)
  set(job, 'state', 'cancelled')
  set(job, 'ended', now_ms)
  set(job, 'error', nil)
  note(job, 'cancelled', job.reason or 'cancelled', job.by)
  arrive(job)
  return save(job)
end

-- The job begins its next attempt after `delay_ms`.
local function retry_later(job, failure, results, delay_ms)
  depart(job)
  set(job, 'state', 'retrying')
  set(job, 'error', failure)
  set(job, 'run', int(now + delay_ms))
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
  set(job, 'ended', now_ms)
  set(job, 'state', outcome == 'passed' and 'completed' or 'failed')
  set(job, 'error', outcome ~= 'passed' and failure or nil)
  note(job, job.state, results)
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
