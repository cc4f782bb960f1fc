-- The entries of one inbox channel. This text stands before each script that reads or changes them.
--
-- base      hash: `s` and an id: the state of an entry; `b` and an id: its message; `p` and a place: its id
-- base a    all entries, base u the unread ones, base w those that nobody confirmed: ids by their sequence numbers
-- shared    hash: `all`: how many entries are unread in all inboxes that share it; `c` and a channel: in that one
-- shared r  channels by the age of their oldest entry
-- shared f: and an id: the channels that have an entry of this id
local SEQ, EPOCH, OFFSET, AT, STATUS, CONFIRMED, DELIVERED, READ, USER, SENDER, TAKERS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local function inbox(base, shared, channel)
  local box = { all = base .. 'a', unread = base .. 'u', waiting = base .. 'w', ages = shared .. 'r' }

  function box.load(id)
    local packed = redis.call('HGET', base, 's' .. id)
    return packed and cmsgpack.unpack(packed)
  end

  function box.save(id, state)
    redis.call('HSET', base, 's' .. id, cmsgpack.pack(state))
  end

  function box.body(id)
    return redis.call('HGET', base, 'b' .. id)
  end

  function box.at(epoch, offset)
    return redis.call('HGET', base, 'p' .. epoch .. ' ' .. offset)
  end

  -- Notes that so many more are unread.
  function box.count(more)
    if more ~= 0 then
      redis.call('HINCRBY', shared, 'all', more)
      if redis.call('HINCRBY', shared, 'c' .. channel, more) == 0 then
        redis.call('HDEL', shared, 'c' .. channel)
      end
    end
  end

  -- Takes an entry out of the unread ones, whatever becomes of it.
  function box.no_more_unread(id)
    box.count(-redis.call('ZREM', box.unread, id))
  end

  function box.remove(id, state)
    box.no_more_unread(id)
    redis.call('HDEL', base, 's' .. id, 'b' .. id, 'p' .. state[EPOCH] .. ' ' .. state[OFFSET])
    redis.call('ZREM', box.all, id)
    redis.call('ZREM', box.waiting, id)
    redis.call('ZREM', shared .. 'f:' .. id, channel)
  end

  -- Notes how old the oldest entry is.
  function box.age()
    local first = redis.call('ZRANGE', box.all, 0, 0)[1]
    if first then
      redis.call('ZADD', box.ages, box.load(first)[AT], channel)
    else
      redis.call('ZREM', box.ages, channel)
    end
  end

  -- Adds an entry, unless its id is known, and keeps to `most` of them. All of it goes `ttl` ms after the last one
  -- at the latest, should nobody remove it before.
  function box.add(id, state, body, most, ttl)
    if redis.call('HEXISTS', base, 's' .. id) == 1 then
      return
    end
    -- Sequence numbers are times, so that those of several channels can be compared.
    local now = redis.call('TIME')
    local last = redis.call('ZRANGE', box.all, -1, -1, 'WITHSCORES')[2]
    state[SEQ] = math.max(now[1] * 1000000 + now[2], last and last + 1 or 0)
    box.save(id, state)
    redis.call('HSET', base, 'b' .. id, body, 'p' .. state[EPOCH] .. ' ' .. state[OFFSET], id)
    redis.call('ZADD', box.all, state[SEQ], id)
    redis.call('ZADD', box.unread, state[SEQ], id)
    redis.call('ZADD', box.waiting, state[SEQ], id)
    redis.call('ZADD', shared .. 'f:' .. id, state[SEQ], channel)
    box.count(1)
    local over = redis.call('ZCARD', box.all) - most
    if over > 0 then
      for _, old in ipairs(redis.call('ZRANGE', box.all, 0, over - 1)) do
        box.remove(old, box.load(old))
      end
      box.age()
    else
      redis.call('ZADD', box.ages, 'NX', state[AT], channel)
    end
    for _, key in ipairs({ base, box.all, box.unread, box.waiting, shared, box.ages, shared .. 'f:' .. id }) do
      redis.call('PEXPIRE', key, ttl)
    end
  end

  function box.recall(id)
    local state = box.load(id)
    if state and state[STATUS] ~= 'recalled' then
      state[STATUS] = 'recalled'
      box.save(id, state)
      box.no_more_unread(id)
    end
  end

  function box.is_offline(state)
    return not state[CONFIRMED] and #state[TAKERS] == 0
  end

  function box.confirm(id, state, now)
    state[CONFIRMED], state[DELIVERED], state[TAKERS] = true, state[DELIVERED] or now, {}
    box.save(id, state)
    redis.call('ZREM', box.waiting, id)
  end

  -- An entry as its readers get it.
  function box.row(id, state)
    return { state[SEQ], channel, id, state[EPOCH], state[OFFSET], state[STATUS], state[DELIVERED] or 0,
      state[READ] or 0, state[USER], state[SENDER] or '', box.body(id) }
  end

  return box
end

