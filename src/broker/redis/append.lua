-- Appends groups of messages, in order; a group as a whole or not at all. Stops before the first group whose
-- snapshot was folded onto an old version.
--
-- KEYS  per channel its meta and history; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, a new epoch, how to publish, under which name, number of channels, number of
--       groups
--       per channel: size, ttl in ms
--       per group: channel, id, memory, record, what it is to an inbox or '', fold, [version, snapshot, test, state,
--         index], number of mirrors
--       per mirror: channel, id, memory, record, what it is to an inbox or ''
-- The memory says how an id is known again: `m` noted, `f` noted and certainly new, `?` noted or perhaps one of a row
-- that somebody else sends, `c` by the newest number of its row, `n` by the first message of its group.
-- A meta is a hash: `epoch`, `top`, `oldest`, `touched` (when its life was prolonged), `i` and an id: the offset of
-- that message; `j` and a row: the newest number of it; `short`, if its history is a text; where the channel has a snapshot,
-- its `version` and `text`, and where the lists have its test, `state` and `seq`.
-- The answer: per message its offset, negative for a known first one, 0 for a refused first or a known mirror;
-- the epochs of the channels; version and text of the snapshot that stopped it, or -1.
--
-- Most of the time goes into calls, so that there are as few as can be: of each channel all is read at once, worked
-- out here, and written at once.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local now, keep, candidate, publish = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local suffix, count, groups = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local index = KEYS[count * 2 + 1]
local at = 8
local channels, asked = {}, {}

for n = 1, count do
  channels[n] = {
    meta = KEYS[n * 2 - 1], history = KEYS[n * 2], rule = rule_of(tonumber(ARGV[at]), tonumber(ARGV[at + 1]), keep),
    wanted = { 'epoch', 'top', 'oldest', 'touched', 'version', 'state', 'seq', 'short' }, asked = {}, noted = {}, records = {},
  }
  at = at + 2
end

local function message()
  local found = {
    channel = channels[tonumber(ARGV[at])], id = ARGV[at + 1], memory = ARGV[at + 2], record = ARGV[at + 3],
    news = ARGV[at + 4],
  }
  local memory, field = found.memory, 'i' .. found.id
  if memory == 'c' then
    found.of, found.number = row_of(found.id)
    field = 'j' .. found.of
  end
  if memory ~= 'f' and memory ~= 'n' then
    local wanted, asked = found.channel.wanted, found.channel.asked
    wanted[#wanted + 1], asked[#asked + 1] = field, field
  end
  found.field = field
  at = at + 5
  return found
end

for n = 1, groups do
  local group = { first = message(), mirrors = {}, fold = ARGV[at] }
  at = at + 1
  if group.fold ~= '0' then
    group.version, group.text, group.test = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
    group.state, group.indexed = ARGV[at + 3], ARGV[at + 4] == '1'
    at = at + 5
  end
  local mirrors = tonumber(ARGV[at])
  at = at + 1
  for m = 1, mirrors do group.mirrors[m] = message() end
  asked[n] = group
end

for n, channel in ipairs(channels) do
  local found = call('HMGET', channel.meta, unpack(channel.wanted))
  channel.epoch, channel.top, channel.oldest = found[1], tonumber(found[2] or 0), tonumber(found[3] or 1)
  channel.touched, channel.version = tonumber(found[4] or 0), tonumber(found[5] or 0)
  channel.state, channel.seq, channel.short = found[6], found[7], found[8]
  for i, field in ipairs(channel.asked) do channel.noted[field] = tonumber(found[i + 8] or 0) end
  if not channel.epoch then
    -- Whatever is left of the data belongs to a past that nobody can continue.
    call('DEL', channel.history)
    channel.epoch, channel.top, channel.oldest, channel.touched = candidate .. n, 0, 1, 0
    channel.begun = true
  end
  channel.before = channel.top
end

-- Where the message with this id stands, found by a look through all of history.
local function found_in(channel, id)
  local upto, found = '+', nil
  -- The newest, should there be several: one that is too old to count and its successor.
  local function look(entries)
    for _, entry in ipairs(entries) do
      local records = records_of(entry)
      for n, record in ipairs(records) do
        local offset = offset_of(entry) - #records + n
        if string.match(record, '^%d+ (%S+)') == id then found = math.max(found or 0, offset) end
      end
      upto = '(' .. entry[1]
    end
    return #entries
  end
  if channel.short then
    look(entries_in(call('GET', channel.history) or '0\n'))
    return found
  end
  repeat local looked = look(call('XREVRANGE', channel.history, upto, '-', 'COUNT', 8)) until found or looked < 8
  return found
end

-- Where a message with this id stands, if history still has it.
local function known(message)
  local channel, memory = message.channel, message.memory
  if memory == 'n' then return nil end
  local offset = channel.noted[message.field] or 0
  if memory == 'c' then
    if offset < tonumber(message.number) then return nil end
    -- Whatever became of it: later ones of its row are there.
    return found_in(channel, message.id) or math.max(channel.top, 1)
  end
  if memory == '?' and offset == 0 then offset = found_in(channel, message.id) or 0 end
  if offset > channel.before then return offset end
  if offset < channel.oldest or offset + channel.rule.size <= channel.top then return nil end
  local stands, record = message_from(reader(channel.history), offset)
  if stands ~= offset or tonumber(string.match(record, '^%d+')) < now - channel.rule.ttl then return nil end
  return offset
end

-- What is appended, in order.
local order = {}

local function append(message)
  local channel = message.channel
  channel.top = channel.top + 1
  channel.noted[message.field] = message.memory == 'c' and tonumber(message.number) or channel.top
  channel.records[#channel.records + 1] = message
  message.offset = channel.top
  order[#order + 1] = message
  return channel.top
end

local results, stopped, text = {}, -1, ''
for _, group in ipairs(asked) do
  local channel = group.first.channel
  local before = known(group.first)
  local refused = false
  if not before and group.fold ~= '0' then
    if channel.version ~= group.version then
      stopped, text = channel.version, channel.text or call('HGET', channel.meta, 'text') or ''
      break
    end
    refused = group.fold == 'refuse'
    if not refused then
      channel.version, channel.text = channel.version + 1, group.text
      if group.indexed then channel.listed = { name = group.test, state = group.state } end
    end
  end
  if before then
    results[#results + 1] = -before
  elseif refused then
    results[#results + 1] = 0
  else
    results[#results + 1] = append(group.first)
  end
  for _, mirror in ipairs(group.mirrors) do
    if before or refused or known(mirror) then
      results[#results + 1] = 0
    else
      results[#results + 1] = append(mirror)
    end
  end
end

if index then
  local tests = {}
  for _, channel in ipairs(channels) do
    local listed = channel.listed
    if listed then
      listed.was, listed.seq = channel.state, channel.seq
      tests[#tests + 1] = listed
    end
  end
  if #tests > 0 then list_tests(index, now, tests) end
end

local function write(channel)
  local changes, entry = {}, {}
  if channel.rule.size > 0 then
    for n, appended in ipairs(channel.records) do
      local memory = appended.memory
      entry[#entry + 1], entry[#entry + 2] = (memory == 'c' or memory == 'n') and memory or 'm', appended.record
      if memory ~= 'n' then
        changes[#changes + 1] = appended.field
        changes[#changes + 1] = memory == 'c' and appended.number or int(channel.before + n)
      end
    end
  end
  if channel.text then channel.version = int(channel.version) end
  store(channel, now, changes, #changes, unpack(entry))
  for n, appended in ipairs(channel.records) do
    if appended.news ~= '' then
      local base, name = string.sub(channel.meta, 1, -2) .. 'n', string.match(channel.meta, '{c:([^}]*)}m$')
      inbox_note(base, name, appended.news, appended.id, channel.epoch, channel.before + n, appended.record)
    end
  end
end

-- Publishes the messages of one channel from `first` to `last`: one as it is, or several behind their lengths. The
-- text is made in one step: Lua hashes each one as a whole.
local function tell(first, last)
  local channel = order[first].channel
  local parts = { channel.epoch, ' ', int(order[first].offset) }
  if first < last then
    for n = first, last do parts[#parts + 1], parts[#parts + 2] = ' ', int(#order[n].record) end
  end
  parts[#parts + 1] = '\n'
  for n = first, last do parts[#parts + 1] = order[n].record end
  call(publish, string.sub(channel.meta, 1, -2) .. suffix, table.concat(parts))
end

local epochs = {}
for n, channel in ipairs(channels) do
  epochs[n] = channel.epoch
  if #channel.records > 0 then
    write(channel)
  elseif channel.begun then
    call('HSET', channel.meta, 'epoch', channel.epoch, 'top', 0, 'oldest', 1)
    call('PEXPIRE', channel.meta, int(keep))
  end
end
-- In the order of the call, whatever the channel: who listens to several hears of a job's changes one after the other.
local first = 1
for n, message in ipairs(order) do
  if not order[n + 1] or order[n + 1].channel ~= message.channel then
    tell(first, n)
    first = n + 1
  end
end
return { results, epochs, stopped, text }
