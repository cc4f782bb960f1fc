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
--   R:out      zset     `ID SEQ` of what is still to be told, by when it came about; of what came about at once, the last
--   R:active   hash     test -> its newest job;            R:keys  hash  dedupe key -> job
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

local now_ms = int(now)

-- A call with many arguments, in steps: one takes a limited number. A multiple of two stays together.
local function in_steps(command, key, args)
  for i = 1, #args, 1000 do redis.call(command, key, unpack(args, i, math.min(i + 999, #args))) end
end

-- Of each job how it was read, the names of the fields that have changed, and the number of the newest change that was
-- noted.
local read, changed, noted = {}, {}, {}

-- Changes a field of a job, or takes it away. `save` writes what has changed.
local function set(job, field, value)
  if value == nil and job[field] == nil then return end
  job[field] = value
  local names = changed[job]
  names[#names + 1] = field
end

-- A job that is not written yet: all of its fields have changed.
local function made(job)
  read[job], changed[job] = {}, {}
  for field in pairs(job) do table.insert(changed[job], field) end
end

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
  -- With room for the fields of most jobs at once.
  local job = {
    id = nil, test = nil, type = nil, prio = nil, max = nil, config = nil, attempt = nil, base = nil, fence = nil, cancel = nil,
    series = nil, seq = nil, state = nil, created = nil, queued = nil, eseq = nil, worker = nil, started = nil, claim = nil,
  }
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  read[job], changed[job] = flat, {}
  if not job.lane then set(job, 'lane', suite_of(job)) end
  return job
end

-- The rank among those who may be claimed: four priorities above 2^50 numbers, all of them exact in a double.
local function rank(job) return int((4 - tonumber(job.prio)) * 1125899906842624 + tonumber(job.seq)) end

local function publish(text) redis.call(ARGV[1], R .. ':p', text) end

-- What leaves sorted sets and sets and what comes into them, by key without its root, until `settle`: one command for
-- many jobs.
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
  local list = among(left, ':w:' .. worker)
  list[#list + 1] = id
end

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
  take_out(':s:' .. job.state, id)
  if job.state == 'queued' then
    take_out(':r:' .. lane_of(job), id)
    -- Where those wait that are from before suites had lanes.
    if job.lane then take_out(':r:' .. job.type, id) end
  elseif job.state == 'scheduled' or job.state == 'retrying' then
    take_out(':due', id)
  elseif job.state == 'running' then
    take_out(':lease', id)
    let_go(job.worker, id)
    if job.lane then
      local list = among(left, ':l:' .. lane_of(job))
      list[#list + 1] = id
    end
    if job.cancel == '1' then take_out(':cancels', id) end
  else
    take_out(':ended', id)
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
  put_in(':s:' .. job.state, job.seq, id)
  if job.state == 'queued' then
    put_in(':r:' .. lane_of(job), rank(job), id)
  elseif job.state == 'scheduled' or job.state == 'retrying' then
    put_in(':due', job.run, id)
  elseif job.state == 'running' then
    put_in(':lease', int(now + lease_ms), id)
    redis.call('SADD', R .. ':w:' .. job.worker, id)
  else
    put_in(':ended', now_ms, id)
  end
end

-- A text as JSON.
local function text_of(value)
  if value == nil or value == '' then return '""' end
  if not string.find(value, '[^%w]') then return '"' .. value .. '"' end
  return cjson.encode(value)
end

-- Notes a change that is to be told of, in the job itself: state and news are written at once. Its number rises
-- with the clock too, so that a queue that lost its newest changes never gives a number to something else.
local function note(job, kind, payload, extra)
  local number = int(math.max(tonumber(job.eseq) + 1, now_us))
  set(job, 'eseq', number)
  noted[job] = number
  set(job, 'o:' .. number, '[' .. text_of(kind) .. ',"' .. now_ms .. '","' .. job.state .. '","' .. job.attempt .. '","'
    .. (job.run or '') .. '","' .. (job.started or '') .. '","' .. (job.worker or '') .. '",' .. text_of(job.error) .. ','
    .. text_of(payload) .. ',' .. text_of(extra) .. ']')
end

-- Writes what left and what came, and wakes who waits for it.
local function settle()
  for key, list in pairs(gone) do in_steps('ZREM', R .. key, list) end
  for key, list in pairs(left) do in_steps('SREM', R .. key, list) end
  for key, list in pairs(come) do
    in_steps('ZADD', R .. key, list)
    if string.sub(key, 1, 3) == ':r:' and not string.find(key, '/', 4, true) then
      -- Who found nothing looks again; while there is something, nobody has found nothing.
      if redis.call('ZCARD', R .. key) == #list / 2 then publish('ready') end
    elseif key == ':due' then
      local first = redis.call('ZRANGE', R .. key, 0, 0)[1]
      for n = 2, #list, 2 do
        if list[n] == first then publish('due') end
      end
    end
  end
  for lane in pairs(lanes) do show(lane) end
  lanes = {}
  gone, left, come = {}, {}, {}
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
  if failure then unreadable[#unreadable + 1] = cjson.encode({ 'id', id, 'unreadable', failure }) end
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

-- A job as answers have it, by its fields and their values: one text, because Redis takes long to answer with many; but a
-- list where much of it is untold, because what makes the text keeps as much memory for ever. What stands twice counts as
-- it stands last.
local MANY = 128
local function answered(fields) return #fields <= MANY and cjson.encode(fields) or fields end

local function whole(job) return answered(flat(job)) end

-- Writes what has changed of a job that was read. The answer is the job.
local function save(job)
  local key, out, written, lost = R .. ':j:' .. job.id, read[job], {}, nil
  for _, field in ipairs(changed[job]) do
    local value = job[field]
    if value then
      written[#written + 1], written[#written + 2] = field, value
    else
      lost = lost or {}
      lost[#lost + 1] = field
    end
  end
  in_steps('HSET', key, written)
  if lost then
    in_steps('HDEL', key, lost)
  end
  -- Found by whoever sweeps, should nobody tell it: what is told of a job is told in order.
  if noted[job] then put_in(':out', now_ms, job.id .. ' ' .. noted[job]) end
  if lost then return whole(job) end
  local size = #out
  for i = 1, #written do out[size + i] = written[i] end
  return answered(out)
end
