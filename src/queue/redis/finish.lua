-- Ends attempts, with what each tells last. ARGV: publish, shortest and longest back-off in ms, how much may be untold of
-- a job, then of each: job, fence, test and secret of a holder outside or nothing, outcome, error, whether it is final,
-- results, how long it took if that is known, how it went if that is for the past, number of reports, then kind, payload and percent of each of these.
-- The answer: of each 'ok' and the job, or 'told' and the job as it ended before, or 'lost', or 'broken' and why.
local base_ms, max_ms, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

-- What an end for good leaves for the next runs of its series: of each series the runs of this call.
local runs = {}
local function remember(job, measured, run)
  if not job.series or run == '' or (job.state ~= 'completed' and job.state ~= 'failed') then return end
  local took = job.hold and measured ~= '' and measured or int(math.max(0, now - tonumber(job.started)))
  local list = among(runs, job.series)
  list[#list + 1] = took .. ' ' .. run
end

local MOST_RUNS, MOST_SERIES = 50, 2000
local function keep(series, list)
  local key = R .. ':past:' .. series
  -- Some more than are read, so that not every end has to cut.
  if redis.call('LPUSH', key, unpack(list)) > MOST_RUNS + 14 then redis.call('LTRIM', key, 0, MOST_RUNS - 1) end
  local is_new = redis.call('ZADD', R .. ':pasts', now_ms, series) == 1
  if is_new and redis.call('ZCARD', R .. ':pasts') > MOST_SERIES then
    local oldest = redis.call('ZPOPMIN', R .. ':pasts')[1]
    redis.call('DEL', R .. ':past:' .. oldest)
  end
end

-- The job of the one that stands at `at`. Whoever holds it outside asks again where the answer was lost.
local function ending(at)
  local secret = ARGV[at + 3]
  local job = held(ARGV[at], ARGV[at + 1], ARGV[at + 2], secret)
  if job and job.state ~= 'running' and (secret == '' or not job.ended or was_lost(job)) then return nil end
  return job
end

local function finish(job, at, reports)
  if not job then return { 'lost' } end
  if job.state ~= 'running' then return { 'told', whole(job) } end
  -- The end is never refused; what else there is to tell is, where too much waits.
  if has_room(job, reports, most) then
    for i = at + 11, at + 3 * reports + 10, 3 do note(job, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  end
  local answer = end_attempt(job, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6] == '1', ARGV[at + 7], base_ms, max_ms)
  pcall(remember, job, ARGV[at + 8], ARGV[at + 9])
  return { 'ok', answer }
end

local answers = each(5, 11, ending, finish)
-- The ends are written: what cannot be noted of them for the next ones takes nothing back.
for series, list in pairs(runs) do pcall(keep, series, list) end
return answers
