-- Names (of users, of rooms) with a count on each node, summed up over all nodes. This text stands before each
-- script that reads or changes them.
--
-- base          hash: a node: its incarnation, and the number of the last batch that it wrote; a `-` before the
--               incarnation: it is dead, and is being taken out
-- base n: and a node   hash: its count of each name
-- base t        hash: the sum of each name
-- base z        the names with a sum, in their order
-- base s        hash: since when there has been a sum, in ms
-- base o        list: what is to be told of names that came and went: id, name, sum
-- base k        the last id
local function tally(base, node, tells, most, ttl)
  local own, sums, names, since, outbox = base .. 'n:' .. node, base .. 't', base .. 'z', base .. 's', base .. 'o'
  local self = { own = own, told = 0 }

  -- Notes that a name came or went. Where too much waits, the last note of this name, which is of the reverse,
  -- goes, and this one is not made.
  local function tell(name, sum)
    if redis.call('LLEN', outbox) >= most then
      local waiting = redis.call('LRANGE', outbox, 0, -1)
      for i = #waiting, 1, -1 do
        if string.match(waiting[i], '^%S+ (%S+) ') == name then
          redis.call('LREM', outbox, -1, waiting[i])
          return
        end
      end
    end
    local now = redis.call('TIME')
    local id = math.max(now[1] * 1000000 + now[2], (redis.call('GET', base .. 'k') or 0) + 1)
    redis.call('SET', base .. 'k', string.format('%.0f', id), 'PX', ttl)
    redis.call('RPUSH', outbox, string.format('%.0f %s %d', id, name, sum))
    self.told = self.told + 1
  end

  function self.set(name, count, at)
    local before = tonumber(redis.call('HGET', own, name)) or 0
    if count == before then
      return
    end
    if count == 0 then
      redis.call('HDEL', own, name)
    else
      redis.call('HSET', own, name, count)
    end
    local sum = redis.call('HINCRBY', sums, name, count - before)
    if sum <= 0 then
      redis.call('HDEL', sums, name)
      redis.call('HDEL', since, name)
      redis.call('ZREM', names, name)
    elseif sum == count - before then
      redis.call('HSET', since, name, at)
      redis.call('ZADD', names, 0, name)
    else
      return
    end
    if tells then
      tell(name, sum)
    end
  end

  -- Everything goes `ttl` ms after the last node was heard of.
  function self.keep()
    for _, key in ipairs({ base, own, sums, names, since, outbox }) do
      redis.call('PEXPIRE', key, ttl)
    end
  end

  return self
end

-- The incarnation of a node, and the number of its last batch.
local function incarnation(base, node)
  return string.match(redis.call('HGET', base, node) or '', '^(%S+) (%d+)$')
end

