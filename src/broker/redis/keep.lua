-- What a call that appends writes of one channel. This text stands before each script that appends.
--
-- A channel is a table: `meta` and `history`, its keys; `rule`, how it is kept; `epoch`, `top`, `oldest`, `touched` (when its
-- life was prolonged) and `short` (whether its history is a text) as they are now, `before` the top before the call,
-- `begun` if it had no epoch; `joined`, what is appended, as it stands in a short history, or `whole`, the same as a short
-- history that begins with it, if whoever called thought it to be one: Lua takes long to make texts; `version` and `text`
-- of its snapshot, as texts, and `listed`, where the call changes them. This is where most of the time goes, so that
-- nothing is made twice.

-- How many bytes a history has as a text at most: a stream of one message takes as many.
local SHORT = 4096

-- How channels are kept that keep so many messages, for so long; `keep` is the least life of a meta; all in ms.
--   step    a look at what may go costs the reading of an entry, so that not every call has one
--   pause   lives are longer than they have to be by more than this, and are not prolonged before
--   life    how long a history lives, as a text;  kept  how long a meta does, and whether that is more than the least
local function rule_of(size, ttl, keep)
  return {
    size = size, ttl = ttl, step = size < 4096 and 64 or 512, pause = ttl / 8, life = int(ttl * 1.25 + 1000),
    kept = int(math.max(keep, ttl * 2)), is_longer = ttl * 2 > keep,
  }
end

-- How many fields the meta of a channel has that knows no message by its id, and has a stream and no snapshot.
local FEWEST = 4

-- Removes messages that are beyond the size where nothing else is known of them; whether that is enough for now.
local function cut(channel, now)
  if redis.call('HLEN', channel.meta) > FEWEST then return false end
  local oldest = redis.call('XRANGE', channel.history, '-', '+', 'COUNT', 1)[1]
  if oldest and accepted(oldest) < now - channel.rule.ttl then return false end
  redis.call('XTRIM', channel.history, 'MINID', int(channel.oldest) .. '-0')
  return true
end

-- Removes a bounded number of messages that are beyond the size or the age, and their ids.
local function trim(channel, now)
  if cut(channel, now) then return end
  local fields, values, upto, from, seen = {}, {}, nil, '-', 0
  -- More than are added, so that it comes to an end; in small steps, because an entry may be large.
  local most = 2 * math.max(channel.rule.step, channel.top - channel.before)
  while from and seen < most do
    local entries = redis.call('XRANGE', channel.history, from, '+', 'COUNT', 2)
    from = #entries == 2 and '(' .. entries[2][1]
    for _, entry in ipairs(entries) do
      local last = offset_of(entry)
      if last >= channel.oldest and accepted(entry) >= now - channel.rule.ttl then
        from = nil
        break
      end
      local records, kinds = records_of(entry)
      for n, record in ipairs(records) do
        if kinds[n] == 'm' then
          fields[#fields + 1] = 'i' .. string.match(record, '^%d+ (%S+)')
          values[#values + 1] = int(last - #records + n)
        elseif kinds[n] == 'c' then
          local of, number = row_of(string.match(record, '^%d+ (%S+)'))
          fields[#fields + 1], values[#values + 1] = 'j' .. of, number
        end
      end
      upto, seen = last, seen + #records
    end
  end
  if not upto then return end
  redis.call('XTRIM', channel.history, 'MINID', int(upto + 1) .. '-0')
  local gone = {}
  for n, value in ipairs(#fields > 0 and redis.call('HMGET', channel.meta, unpack(fields)) or {}) do
    -- An id that was free again may belong to a later message; a row may have later ones.
    if value == values[n] then gone[#gone + 1] = fields[n] end
  end
  if #gone > 0 then redis.call('HDEL', channel.meta, unpack(gone)) end
  if channel.oldest <= upto then
    channel.oldest = upto + 1
    redis.call('HSET', channel.meta, 'oldest', int(channel.oldest))
  end
end

-- Where no history is kept any more, nothing of it is left.
local function forget(channel)
  redis.call('DEL', channel.history)
  local gone = {}
  for _, field in ipairs(redis.call('HKEYS', channel.meta)) do
    if string.find(field, '^[ij]') then gone[#gone + 1] = field end
  end
  for n = 1, #gone, 1000 do redis.call('HDEL', channel.meta, unpack(gone, n, math.min(n + 999, #gone))) end
end

-- What the text of a short history says of one call.
local function as_text(...)
  local parts, fields = {}, { ... }
  for n = 1, #fields, 2 do
    local at = #parts
    parts[at + 1], parts[at + 2], parts[at + 3], parts[at + 4], parts[at + 5] =
      fields[n], ' ', int(#fields[n + 1]), '\n', fields[n + 1]
  end
  return table.concat(parts)
end

-- The fields of the entry that is made of what was joined.
local function fields_in(channel)
  local fields = {}
  for _, entry in ipairs(entries_in('0\n' .. channel.joined)) do
    fields[#fields + 1], fields[#fields + 2] = entry[2][1], entry[2][2]
  end
  return fields
end

-- Makes a stream of a text that has become too long.
local function lengthen(channel)
  local entries, left = entries_in(redis.call('GET', channel.history)), redis.call('PTTL', channel.history)
  redis.call('DEL', channel.history)
  for _, entry in ipairs(entries) do redis.call('XADD', channel.history, entry[1], unpack(entry[2])) end
  if left > 0 then redis.call('PEXPIRE', channel.history, int(left)) end
  redis.call('HDEL', channel.meta, 'short')
  channel.short = nil
end

-- Adds what was appended to the history: the fields of an entry. A history that is empty begins as a text, if it fits;
-- whether it did so, and was none before.
local function add_to_history(channel, is_empty, ...)
  local history, joined, whole = channel.history, channel.joined, channel.whole
  if whole and (channel.before > 0 or not is_empty or #whole > SHORT) then
    joined, whole = string.sub(whole, 3), nil
    channel.joined = joined
  end
  if channel.short and not is_empty then
    local text = joined or as_text(...)
    local length = redis.call('APPEND', history, text)
    if length > #text then
      if length > SHORT then lengthen(channel) end
      return false
    end
    -- It was not there, whoever removed it: what was appended has no beginning.
    forget(channel)
    channel.oldest, is_empty = channel.before + 1, true
  end
  if is_empty then
    local size = joined and #joined or whole and #whole or 0
    for n = 2, select('#', ...), 2 do size = size + #select(n, ...) end
    if size <= SHORT then
      local text, was_short = whole or int(channel.before) .. '\n' .. (joined or as_text(...)), channel.short
      redis.call('SET', history, text, 'PX', channel.rule.life)
      channel.short = '1'
      return not was_short
    end
    redis.call('DEL', history)
    if channel.short then redis.call('HDEL', channel.meta, 'short') end
    channel.short = nil
  end
  if joined then
    redis.call('XADD', history, int(channel.top) .. '-1', unpack(fields_in(channel)))
  else
    redis.call('XADD', history, int(channel.top) .. '-1', ...)
  end
  if is_empty then redis.call('PEXPIRE', history, channel.rule.life) end
  return false
end

-- Writes what was appended to a channel, at least one message: the first `filled` of `changes` are fields of its meta and
-- their values, what follows is the fields of the entry.
local function store(channel, now, changes, filled, ...)
  local meta, rule, before, oldest, touched = channel.meta, channel.rule, channel.before, channel.oldest, channel.touched
  local was_empty, size, begun, listed = oldest > before, rule.size, channel.begun, channel.listed
  local is_empty = was_empty
  -- A history that begins while its meta was prolonged lately ends before that does, unless it stays for very long.
  local touch = now - touched > rule.pause or now < touched or (size > 0 and was_empty and rule.is_longer)
  if size == 0 then
    if not was_empty then forget(channel) end
    channel.oldest = channel.top + 1
  else
    if touch and not was_empty and redis.call('EXISTS', channel.history) == 0 then
      -- It came to the end of its life, so that nothing leads to the ids of its messages any more.
      forget(channel)
      channel.oldest, is_empty = before + 1, true
    end
    if add_to_history(channel, is_empty, ...) then
      changes[filled + 1], changes[filled + 2] = 'short', '1'
      filled = filled + 2
    end
    if channel.top - channel.oldest >= size then channel.oldest = channel.top + 1 - size end
  end
  changes[filled + 1], changes[filled + 2] = 'top', int(channel.top)
  filled = filled + 2
  if begun then
    changes[filled + 1], changes[filled + 2] = 'epoch', channel.epoch
    filled = filled + 2
  end
  if begun or channel.oldest ~= oldest then
    changes[filled + 1], changes[filled + 2] = 'oldest', int(channel.oldest)
    filled = filled + 2
  end
  if channel.text then
    changes[filled + 1], changes[filled + 2] = 'version', channel.version
    changes[filled + 3], changes[filled + 4] = 'text', channel.text
    filled = filled + 4
  end
  if listed and listed.seq then
    changes[filled + 1], changes[filled + 2] = 'state', listed.state
    changes[filled + 3], changes[filled + 4] = 'seq', listed.seq
    filled = filled + 4
  end
  if touch then
    changes[filled + 1], changes[filled + 2] = 'touched', int(now)
    filled = filled + 2
  end
  redis.call('HSET', meta, unpack(changes, 1, filled))
  if touch then
    redis.call('PEXPIRE', meta, rule.kept)
    if size > 0 and not is_empty then redis.call('PEXPIRE', channel.history, rule.life) end
  end
  if size > 0 and not channel.short and math.floor(channel.top / rule.step) > math.floor(before / rule.step) then
    trim(channel, now)
  end
end
