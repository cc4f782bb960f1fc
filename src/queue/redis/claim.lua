-- Takes jobs for a worker. ARGV: publish, worker, lease in ms, how many at most, a name for this claim, 1 if its answer
-- was lost before, then the test types.
-- What many jobs need of one key is asked for, and changed, at once.
local worker, lease_ms, most, name = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local taken = {}
if ARGV[6] == '1' then
  for _, id in ipairs(redis.call('SMEMBERS', R .. ':w:' .. worker)) do
    local job = look(id, function(job) return job.claim == name and whole(job) end)
    if job then
      put_in(':lease', int(now + lease_ms), id)
      taken[#taken + 1] = job
    end
  end
  settle()
  most = most - #taken
  if most <= 0 then return and_unreadable(taken) end
end
local paused = redis.call('HMGET', R .. ':paused', '*', unpack(ARGV, 7))
if paused[1] then return and_unreadable(taken) end
local ids, running, leases, queued = {}, {}, {}, depth()

-- What stands first in a ready set, whose key is without its root, as many as are wanted still; a suite's lane in place
-- of its mark. `again`: there may be more behind what could not be taken.
local ready, again
local moved = 0 -- how many could not be taken
local function gather(key, wanted)
  local found = redis.call('ZRANGE', R .. key, 0, wanted - 1, 'WITHSCORES')
  for n = 1, #found, 2 do
    local id = found[n]
    if string.sub(id, 1, 1) == '/' then
      local lane = string.sub(key, 4) .. id
      local room, before = math.min(wanted, room_of(lane)), #ready
      if room > 0 then gather(key .. id, room) end
      -- A mark in front of nobody who may begin: it takes the place of others no more.
      if #ready == before then lanes[lane], again = true, true end
    else
      ready[#ready + 1] = { key = key, id = id, rank = tonumber(found[n + 1]) }
    end
  end
end
repeat
  again = false
  ready = {}
  for i = 7, #ARGV do
    if not paused[i - 5] then gather(':r:' .. ARGV[i], most - #ids) end
  end
  table.sort(ready, function(one, other) return one.rank < other.rank end)
  for n = 1, math.min(#ready, most - #ids) do
    local key, id = ready[n].key, ready[n].id
    local seq, lane
    local job = look(id, function(job)
      if job.lane and key == ':r:' .. job.type then
        -- From before suites had lanes: it waits in that of its own.
        put_in(':r:' .. lane_of(job), rank(job), id)
        save(job)
        return nil
      end
      set(job, 'worker', worker)
      set(job, 'started', now_ms)
      set(job, 'claim', name)
      seq = int(tonumber(job.seq))
      lane = job.lane and lane_of(job)
      begin(job)
      note(job, 'started', nil, int(queued - #ids - 1))
      return save(job)
    end)
    if job then
      if lane then redis.call('SADD', R .. ':l:' .. lane, id) end
      taken[#taken + 1], ids[#ids + 1] = job, id
      running[#running + 1], running[#running + 2] = seq, id
      leases[#leases + 1], leases[#leases + 2] = int(now + lease_ms), id
    else
      again, moved = true, moved + 1
      -- It does not say which lane loses its first one.
      local from = string.sub(key, 4)
      if string.find(from, '/', 1, true) then lanes[from] = true end
    end
    take_out(key, id)
  end
  settle()
until not again or #ids == most or moved >= 1000
-- Redis does nothing else meanwhile: whoever looks next goes on.
if moved >= 1000 then publish('ready') end
if #ids == 0 then return and_unreadable(taken) end
redis.call('ZREM', R .. ':s:queued', unpack(ids))
redis.call('ZADD', R .. ':s:running', unpack(running))
redis.call('ZADD', R .. ':lease', unpack(leases))
redis.call('SADD', R .. ':w:' .. worker, unpack(ids))
return and_unreadable(taken)
