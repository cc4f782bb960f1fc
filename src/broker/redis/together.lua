-- Appends the messages of a call, if everything is as whoever called expected: no id is known, no snapshot is another
-- one. If not, nothing is changed. What most calls are is done here, without a step for each message; what is left over
-- is for `append.lua`.
--
-- KEYS  per channel its meta and history; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, a new epoch, how to publish, under which name, number of channels
--       per channel: size, ttl in ms, number of messages, version of its snapshot or '', [version, snapshot, test, state,
--         1 if lists have to know]; number of fields to look at, how many of them are rows, these: ids that have to be
--         unknown, then rows; of each row the lowest of the numbers, which has to be beyond it, its field again, and the
--         highest, or 0 if it stays; number of ids to note, of each its field and its number among the messages; number
--         of texts, of each the name of its field and itself, or 0, and all of them as they stand in a short history
--       per publication: channel, number of its first message, lengths behind a space each if they are several, where in
--         ARGV its text stands, and from where to where in that, if it is not all of it
-- The answer: 1, epochs of the channels, their tops before; or 0, then of each snapshot that is another one: the number
-- of its channel, version and text; or -1 if an id is known.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local now, keep, publish, suffix, count = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local index = KEYS[count * 2 + 1]
local at, channels, others, known = 7, {}, {}, false

for n = 1, count do
  local channel = {
    meta = KEYS[n * 2 - 1], history = KEYS[n * 2], size = tonumber(ARGV[at]), ttl = tonumber(ARGV[at + 1]),
    messages = tonumber(ARGV[at + 2]),
  }
  local expected = ARGV[at + 3]
  at = at + 4
  if expected ~= '' then
    channel.version, channel.text = ARGV[at], ARGV[at + 1] ~= '' and ARGV[at + 1] or nil
    if ARGV[at + 4] == '1' then channel.listed = { name = ARGV[at + 2], state = ARGV[at + 3] } end
    at = at + 5
  end
  local fields, rows = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local found = call('HMGET', channel.meta, 'epoch', 'top', 'oldest', 'touched', 'version', 'state', 'seq', 'short',
    unpack(ARGV, at + 2, at + fields + 1))
  at = at + fields + 2
  for i = 9, 8 + fields - rows do known = known or found[i] end
  channel.rows, channel.rows_end = at, at + 3 * rows - 1
  for i = 1, rows do
    local newest = found[8 + fields - rows + i]
    known = known or newest and tonumber(newest) >= tonumber(ARGV[at])
    at = at + 3
  end
  if expected ~= '' and (found[5] or '0') ~= expected then
    others[#others + 1] = int(n)
    others[#others + 1] = found[5] or '0'
    others[#others + 1] = call('HGET', channel.meta, 'text') or ''
  end
  channel.epoch, channel.top, channel.oldest = found[1], tonumber(found[2] or 0), tonumber(found[3] or 1)
  channel.touched, channel.state, channel.seq = tonumber(found[4] or 0), found[6], found[7]
  channel.short = found[8]
  channel.before = channel.top
  channel.ids, channel.ids_end = at + 1, at + 2 * tonumber(ARGV[at])
  at = channel.ids_end + 1
  channel.texts, channel.texts_end = at + 1, at + 2 * tonumber(ARGV[at])
  at = channel.texts_end + 1
  if channel.texts > channel.texts_end and channel.messages > 0 then
    channel.joined = ARGV[at]
    at = at + 1
  end
  channels[n] = channel
end
if #others > 0 then return { 0, others, {} } end
if known then return { -1, {}, {} } end

-- Whom nobody listens to need not be told of; most channels of tests and jobs are such.
local names, heard = {}, {}
for n, channel in ipairs(channels) do names[n] = string.sub(channel.meta, 1, -2) .. suffix end
if publish == 'PUBLISH' then
  local listeners = call('PUBSUB', 'NUMSUB', unpack(names))
  for n = 1, count do heard[n] = listeners[2 * n] > 0 end
else
  -- In a cluster who listens to a replica hears it as well, and is counted there: whoever listened to a primary that
  -- became one is such a listener.
  for n = 1, count do heard[n] = true end
end

local tests = {}
for n, channel in ipairs(channels) do
  if not channel.epoch then
    -- Whatever is left of the data belongs to a past that nobody can continue.
    if channel.messages == 0 or channel.size == 0 then call('DEL', channel.history) end
    channel.epoch, channel.top, channel.before, channel.oldest, channel.touched = ARGV[3] .. n, 0, 0, 1, 0
    channel.begun = true
  end
  local listed = channel.listed
  if listed and index then
    listed.was, listed.seq = channel.state, channel.seq
    tests[#tests + 1] = listed
  end
end
if #tests > 0 then list_tests(index, now, tests) end

local epochs, tops = {}, {}
for n, channel in ipairs(channels) do
  epochs[n], tops[n] = channel.epoch, channel.before
  if channel.messages > 0 then
    channel.top = channel.before + channel.messages
    local changes = {}
    for i = channel.ids, channel.ids_end, 2 do
      changes[#changes + 1], changes[#changes + 2] = ARGV[i], int(channel.before + ARGV[i + 1])
    end
    for i = channel.rows, channel.rows_end, 3 do
      if ARGV[i + 2] ~= '0' then changes[#changes + 1], changes[#changes + 2] = ARGV[i + 1], ARGV[i + 2] end
    end
    store(channel, now, keep, changes, unpack(ARGV, channel.texts, channel.texts_end))
  elseif channel.begun then
    call('HSET', channel.meta, 'epoch', channel.epoch, 'top', 0, 'oldest', 1)
    call('PEXPIRE', channel.meta, int(keep))
  end
end

for i = at, #ARGV, 5 do
  local n = tonumber(ARGV[i])
  if heard[n] then
    local channel, text = channels[n], ARGV[tonumber(ARGV[i + 3])]
    local from, to = string.match(ARGV[i + 4], '^(%d+) (%d+)$')
    if from then text = string.sub(text, tonumber(from), tonumber(to)) end
    call(publish, names[n], channel.epoch .. ' ' .. int(channel.before + ARGV[i + 1]) .. ARGV[i + 2] .. '\n' .. text)
  end
end
return { 1, epochs, tops }
