-- Appends the messages of a call, if everything is as whoever called expected: no id is known, no snapshot is another
-- one. If not, nothing is changed. What most calls are is done here, without a step for each message; what is left over
-- is for `append.lua`.
--
-- KEYS  per channel its meta and history; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, a new epoch, how to publish, under which name, number of channels, number of rules
--       per rule: size, ttl in ms
--       per channel: number of its rule, number of messages, version of its snapshot or '', [version, snapshot, test, state,
--         1 if lists have to know]; number of ids that have to be unknown, number of rows, these: fields of ids, then of
--         rows; of each row the lowest of the numbers, which has to be beyond it, and the highest, or 0 if it stays; number
--         of ids to note, of each its field and its number among the messages; number of texts, of each the name of its
--         field and itself, or 0, and all of them as they stand in a short history, or -1, and the same as a whole short
--         history that begins with them
--       the publications in their order, all in one text, of each: channel, number of its first message, where in ARGV its
--         text stands, from where to where in that, lengths if they are several, and a `;`
-- The answer: 1, epochs of the channels, their tops before; or 0, then of each snapshot that is another one: the number
-- of its channel, version and text; or -1 if an id is known.
--
-- Of each channel all is read in one look, kept in a table that is made in one step, and written in one step: that is
-- what most of the time goes into.
local call, KEYS, ARGV, tonumber, unpack = redis.call, KEYS, ARGV, tonumber, unpack
local now, keep, publish, suffix, count = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local index = KEYS[count * 2 + 1]
local at, rules, channels, others, known = 8, {}, {}, {}, false

for n = 1, tonumber(ARGV[7]) do
  rules[n] = rule_of(tonumber(ARGV[at]), tonumber(ARGV[at + 1]), keep)
  at = at + 2
end

for n = 1, count do
  local meta, rule, messages, expected = KEYS[n * 2 - 1], rules[tonumber(ARGV[at])], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local version, text, listed, joined, whole
  at = at + 3
  if expected ~= '' then
    version, text = ARGV[at], ARGV[at + 1] ~= '' and ARGV[at + 1] or nil
    if ARGV[at + 4] == '1' then listed = { name = ARGV[at + 2], state = ARGV[at + 3], was = nil, seq = nil } end
    at = at + 5
  end
  local asked, rows, fields = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), at + 2
  local bounds = fields + asked + rows
  local found, own
  if expected == '' then
    own = 5
    found = call('HMGET', meta, 'epoch', 'top', 'oldest', 'touched', 'short', unpack(ARGV, fields, bounds - 1))
  else
    own = 8
    found = call('HMGET', meta, 'epoch', 'top', 'oldest', 'touched', 'short', 'version', 'state', 'seq',
      unpack(ARGV, fields, bounds - 1))
  end
  for i = own + 1, own + asked do known = known or found[i] end
  for i = 1, rows do
    local newest = found[own + asked + i]
    known = known or newest and tonumber(newest) >= tonumber(ARGV[bounds + 2 * i - 2])
  end
  if expected ~= '' and (found[6] or '0') ~= expected then
    others[#others + 1] = int(n)
    others[#others + 1] = found[6] or '0'
    others[#others + 1] = call('HGET', meta, 'text') or ''
  end
  if listed then listed.was, listed.seq = found[7], found[8] end
  local noted = bounds + 2 * rows + 1
  local texts = noted + 2 * tonumber(ARGV[noted - 1]) + 1
  local kind, top = tonumber(ARGV[texts - 1]), tonumber(found[2] or 0)
  at = texts + 2 * math.max(kind, 0)
  local texts_end = at - 1
  if kind <= 0 and messages > 0 then
    if kind == 0 then joined = ARGV[at] else whole = ARGV[at] end
    at = at + 1
  end
  channels[n] = {
    meta = meta, history = KEYS[n * 2], rule = rule, messages = messages, version = version, text = text, listed = listed,
    epoch = found[1], begun = nil, top = top, before = top, oldest = tonumber(found[3] or 1),
    touched = tonumber(found[4] or 0), short = found[5], rows = rows, row = bounds - rows, bounds = bounds, noted = noted,
    texts = texts, texts_end = texts_end, joined = joined, whole = whole,
  }
end
if #others > 0 then return { 0, others, {} } end
if known then return { -1, {}, {} } end

-- Whom nobody listens to need not be told of; most channels of tests and jobs are such.
local names, heard, is_heard = {}, {}, false
for n, channel in ipairs(channels) do names[n] = string.sub(channel.meta, 1, -2) .. suffix end
if publish == 'PUBLISH' then
  local listeners = call('PUBSUB', 'NUMSUB', unpack(names))
  for n = 1, count do
    heard[n] = listeners[2 * n] > 0
    is_heard = is_heard or heard[n]
  end
else
  -- In a cluster who listens to a replica hears it as well, and is counted there: whoever listened to a primary that
  -- became one is such a listener.
  for n = 1, count do heard[n] = true end
  is_heard = true
end

local tests, epochs, tops, changes = {}, {}, {}, {}
for n, channel in ipairs(channels) do
  if not channel.epoch then
    -- Whatever is left of the data belongs to a past that nobody can continue.
    if channel.messages == 0 or channel.rule.size == 0 then call('DEL', channel.history) end
    channel.epoch, channel.top, channel.before, channel.oldest = ARGV[3] .. n, 0, 0, 1
    channel.begun = true
  end
  epochs[n], tops[n] = channel.epoch, channel.before
  if index and channel.listed then tests[#tests + 1] = channel.listed end
end
if #tests > 0 then list_tests(index, now, tests) end

for _, channel in ipairs(channels) do
  if channel.messages > 0 then
    local before, filled = channel.before, 0
    channel.top = before + channel.messages
    for i = channel.noted, channel.texts - 2, 2 do
      changes[filled + 1], changes[filled + 2] = ARGV[i], int(before + ARGV[i + 1])
      filled = filled + 2
    end
    for i = 0, channel.rows - 1 do
      local highest = ARGV[channel.bounds + 2 * i + 1]
      if highest ~= '0' then
        changes[filled + 1], changes[filled + 2] = ARGV[channel.row + i], highest
        filled = filled + 2
      end
    end
    store(channel, now, changes, filled, unpack(ARGV, channel.texts, channel.texts_end))
  elseif channel.begun then
    call('HSET', channel.meta, 'epoch', channel.epoch, 'top', 0, 'oldest', 1)
    call('PEXPIRE', channel.meta, int(keep))
  end
end

for place, publication in string.gmatch(is_heard and ARGV[at] or '', '(%d+) ([^;]*);') do
  local n = tonumber(place)
  if heard[n] then
    local first, stand, from, to, lengths = string.match(publication, '^(%d+) (%d+) (%d+) (%d+)(.*)$')
    local channel, text = channels[n], string.sub(ARGV[tonumber(stand)], tonumber(from), tonumber(to))
    call(publish, names[n], channel.epoch .. ' ' .. int(channel.before + first) .. lengths .. '\n' .. text)
  end
end
return { 1, epochs, tops }
