-- What a call that appends writes of one channel. This text stands before each script that appends.
--
-- A channel is a table: `meta` and `history`, its keys; `size` and `ttl` in ms, its rules; `epoch`, `top`, `oldest`,
-- `touched` (when its life was prolonged) and `short` (whether its history is a text) as they are now, `before` the top
-- before the call, `begun` if it had no epoch; `joined`, what is appended, as it stands in a short history, if whoever
-- called thought it to be one: Lua takes long to put texts together; `version` and `text` of its snapshot, and `listed`,
-- where the call changes them.

-- How many bytes a history has as a text at most: a stream of one message takes as many.
local SHORT = 4096

-- A look at what may go costs the reading of an entry, so that not every call has one.
local function stride(channel) return channel.size < 4096 and 64 or 512 end

-- Removes a bounded number of messages that are beyond the size or the age, and their ids.
local function trim(channel, now)
  local fields, values, upto, from, seen = {}, {}, nil, '-', 0
  -- More than are added, so that it comes to an end; in small steps, because an entry may be large.
  local most = 2 * math.max(stride(channel), channel.top - channel.before)
  while from and seen < most do
    local entries = redis.call('XRANGE', channel.history, from, '+', 'COUNT', 2)
    from = #entries == 2 and '(' .. entries[2][1]
    for _, entry in ipairs(entries) do
      local last = offset_of(entry)
      if last >= channel.oldest and accepted(entry) >= now - channel.ttl then
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

-- How long a history lives, in ms.
local function life_of(channel) return int(channel.ttl * 1.25 + 1000) end

-- What the text of a short history says of one call.
local function as_text(channel, ...)
  if channel.joined then return channel.joined end
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

-- Adds what was appended to the history: the fields of an entry. A history that is empty begins as a text, if it fits.
local function add_to_history(channel, is_empty, set, ...)
  if channel.short and not is_empty then
    local text = as_text(channel, ...)
    local length = redis.call('APPEND', channel.history, text)
    if length > #text then
      if length > SHORT then lengthen(channel) end
      return
    end
    -- It was not there, whoever removed it: what was appended has no beginning.
    forget(channel)
    channel.oldest, is_empty = channel.before + 1, true
  end
  local size = channel.joined and #channel.joined or 0
  for n = 2, is_empty and select('#', ...) or 0, 2 do size = size + #select(n, ...) end
  if is_empty and size <= SHORT then
    local text = int(channel.before) .. '\n' .. as_text(channel, ...)
    redis.call('SET', channel.history, text, 'PX', life_of(channel))
    if not channel.short then set('short', '1') end
    channel.short = '1'
    return
  end
  if is_empty then
    redis.call('DEL', channel.history)
    if channel.short then redis.call('HDEL', channel.meta, 'short') end
    channel.short = nil
  end
  if channel.joined then
    redis.call('XADD', channel.history, int(channel.top) .. '-1', unpack(fields_in(channel)))
  else
    redis.call('XADD', channel.history, int(channel.top) .. '-1', ...)
  end
  if is_empty then redis.call('PEXPIRE', channel.history, life_of(channel)) end
end

-- Writes what was appended to a channel, at least one message: `changes` are fields of its meta and their values, what
-- follows is the fields of the entry.
local function store(channel, now, keep, changes, ...)
  local was_empty, oldest = channel.oldest > channel.before, channel.oldest
  local function set(field, value) changes[#changes + 1], changes[#changes + 2] = field, value end
  -- Not with each call: lives are longer than they have to be by more than this.
  local touch = now - channel.touched > channel.ttl / 8 or now < channel.touched
    or (channel.size > 0 and was_empty)
  local is_empty = was_empty
  if touch and not was_empty and channel.size > 0 and redis.call('EXISTS', channel.history) == 0 then
    -- It came to the end of its life, so that nothing leads to the ids of its messages any more.
    forget(channel)
    channel.oldest, is_empty = channel.before + 1, true
  end
  if channel.size == 0 then
    if channel.oldest <= channel.before then forget(channel) end
    channel.oldest = channel.top + 1
  else
    add_to_history(channel, is_empty, set, ...)
    if channel.top - channel.oldest >= channel.size then channel.oldest = channel.top + 1 - channel.size end
  end
  set('top', int(channel.top))
  if channel.begun then set('epoch', channel.epoch) end
  if channel.begun or channel.oldest ~= oldest then set('oldest', int(channel.oldest)) end
  if channel.text then
    set('version', int(channel.version))
    set('text', channel.text)
  end
  if channel.listed and channel.listed.seq then
    set('state', channel.listed.state)
    set('seq', channel.listed.seq)
  end
  if touch then set('touched', int(now)) end
  redis.call('HSET', channel.meta, unpack(changes))
  if touch then
    redis.call('PEXPIRE', channel.meta, int(math.max(keep, channel.ttl * 2)))
    if channel.size > 0 and not is_empty then redis.call('PEXPIRE', channel.history, life_of(channel)) end
  end
  local step = stride(channel)
  if channel.size > 0 and not channel.short and math.floor(channel.top / step) > math.floor(channel.before / step) then
    trim(channel, now)
  end
end
