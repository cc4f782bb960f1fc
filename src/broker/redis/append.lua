#!lua
-- Appends groups of messages, in order; a group as a whole or not at all. Stops before the first group whose
-- snapshot was folded onto an old version.
--
-- KEYS  per channel its meta, history, ids and snapshot; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, a new epoch, how to publish, under which name, number of channels, number of
--       groups
--       per channel: size, ttl in ms
--       per group: channel, id, fresh, record, fold, [version, snapshot, test, state, index], number of mirrors
--       per mirror: channel, id, fresh, record
-- The answer: per message its offset, negative for a known first one, 0 for a refused first or a known mirror;
-- the epochs of the channels; version and text of the snapshot that stopped it, or -1.
-- Most of the time goes into calls: there are as few as can be, and nothing is looked up twice.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local now, keep, candidate, publish = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local suffix, count, groups = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local index = KEYS[count * 4 + 1]
local at = 8
local channels = {}

for n = 1, count do
  local meta = KEYS[n * 4 - 3]
  local found = call('HMGET', meta, 'epoch', 'top', 'oldest', 'touched')
  local channel = {
    meta = meta, history = KEYS[n * 4 - 2], ids = KEYS[n * 4 - 1], snapshot = KEYS[n * 4],
    publication = string.sub(meta, 1, -2) .. suffix,
    epoch = found[1], top = tonumber(found[2] or 0), oldest = tonumber(found[3] or 1),
    touched = tonumber(found[4] or 0), size = tonumber(ARGV[at]), ttl = tonumber(ARGV[at + 1]),
  }
  if not channel.epoch then
    -- Whatever is left of the data belongs to a past that nobody can continue.
    call('DEL', channel.history, channel.ids)
    channel.epoch, channel.top, channel.oldest, channel.touched = candidate .. n, 0, 1, 0
    channel.changed = true
    call('HSET', meta, 'epoch', channel.epoch)
  end
  channels[n] = channel
  at = at + 2
end

-- Where a message with this id stands, if history still has it.
local function known(channel, id)
  local offset = tonumber(call('HGET', channel.ids, id) or 0)
  if offset < channel.oldest or offset + channel.size <= channel.top then return nil end
  local entry = call('XRANGE', channel.history, offset .. '-1', offset .. '-1')[1]
  if not entry or tonumber(string.match(entry[2][2], '^%d+')) < now - channel.ttl then return nil end
  return offset
end

-- Removes a bounded number of messages that are beyond the size or the age, and their ids.
local function trim(channel)
  local gone, upto = {}, nil
  for _, entry in ipairs(call('XRANGE', channel.history, '-', '+', 'COUNT', 64)) do
    local offset = tonumber(string.match(entry[1], '^%d+'))
    local accepted, id = string.match(entry[2][2], '^(%d+) (%S+)')
    if offset >= channel.oldest and tonumber(accepted) >= now - channel.ttl then break end
    -- An id that was free again may belong to a later message.
    if call('HGET', channel.ids, id) == tostring(offset) then gone[#gone + 1] = id end
    upto = offset
  end
  if upto then
    call('XTRIM', channel.history, 'MINID', (upto + 1) .. '-0')
    if #gone > 0 then call('HDEL', channel.ids, unpack(gone)) end
    if channel.oldest <= upto then channel.oldest = upto + 1 end
  end
end

local function append(channel, id, record)
  local offset = channel.top + 1
  channel.top, channel.changed = offset, true
  if channel.size == 0 then
    if channel.oldest < offset then
      call('DEL', channel.history, channel.ids)
      channel.touched = 0
    end
    channel.oldest = offset + 1
  else
    call('XADD', channel.history, offset .. '-1', 'm', record)
    call('HSET', channel.ids, id, offset)
    if offset - channel.oldest >= channel.size then channel.oldest = offset + 1 - channel.size end
    if offset % 32 == 0 then trim(channel) end
  end
  call(publish, channel.publication, channel.epoch .. ' ' .. offset .. '\n' .. record)
  return offset
end

local function note(test, state)
  local seq = call('ZSCORE', index .. 'all', test)
  if not seq then
    seq = call('INCR', index)
    call('ZADD', index .. 'all', seq, test)
  end
  for _, other in ipairs({'scheduled', 'queued', 'running', 'retrying', 'completed', 'failed', 'cancelled'}) do
    if other ~= state then call('ZREM', index .. other, test) end
  end
  call('ZADD', index .. state, seq, test)
  call('ZADD', index .. 'seen', now, test)
end

local results, stopped, text = {}, -1, ''
for _ = 1, groups do
  local channel, id, fresh, record = channels[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local fold, folded = ARGV[at + 4], nil
  at = at + 5
  if fold ~= '0' then
    folded = { version = ARGV[at], text = ARGV[at + 1], test = ARGV[at + 2], state = ARGV[at + 3], index = ARGV[at + 4] }
    at = at + 5
  end
  local mirrors = tonumber(ARGV[at])
  at = at + 1
  local before = fresh ~= '1' and known(channel, id)
  local refused = false
  if not before and folded then
    local version = call('HGET', channel.snapshot, 'version') or '0'
    if version ~= folded.version then
      stopped, text = tonumber(version), call('HGET', channel.snapshot, 'text') or ''
      break
    end
    refused = fold == 'refuse'
    if not refused then
      call('HSET', channel.snapshot, 'version', version + 1, 'text', folded.text)
      if folded.index == '1' and index then note(folded.test, folded.state) end
    end
  end
  if before then
    results[#results + 1] = -before
  elseif refused then
    results[#results + 1] = 0
  else
    results[#results + 1] = append(channel, id, record)
  end
  for _ = 1, mirrors do
    local other, own, new, copy = channels[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    at = at + 4
    if before or refused or (new ~= '1' and known(other, own)) then
      results[#results + 1] = 0
    else
      results[#results + 1] = append(other, own, copy)
    end
  end
end

local epochs = {}
for n, channel in ipairs(channels) do
  epochs[n] = channel.epoch
  if channel.changed then
    call('HSET', channel.meta, 'top', channel.top, 'oldest', channel.oldest)
    -- Not with each message: lives are longer than they have to be by more than this.
    if now - channel.touched > channel.ttl / 8 or now < channel.touched then
      call('HSET', channel.meta, 'touched', now)
      call('PEXPIRE', channel.meta, math.max(keep, channel.ttl * 2))
      call('PEXPIRE', channel.snapshot, math.max(keep, channel.ttl * 2))
      call('PEXPIRE', channel.history, math.floor(channel.ttl * 1.25) + 1000)
      call('PEXPIRE', channel.ids, math.floor(channel.ttl * 1.25) + 1000)
    end
  end
end
return { results, epochs, stopped, text }
