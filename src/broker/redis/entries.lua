-- The entries of a history. This text stands before each script that reads them.
--
-- An entry holds the messages that one call appended to the channel, in order; its id is the offset of the last of
-- them, and `-1`. The name of a field says how ids of its messages are known again: `m` each by itself, `c` by the newest
-- number of their row, `n` by other messages. Behind it may stand lengths: then it holds as many messages, without
-- anything between them.
--
-- A history that is short is a text instead, because a stream takes 4 KiB and much time to begin: a line with the offset
-- before its first message, then of each entry a line, the name of a field and how long what stands behind the line is.

-- A whole number as text: Redis takes long to write one that it is handed as a number.
local function int(n) return string.format('%d', n) end

local function offset_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- The row and the number of an id that is one of a row.
local function row_of(id) return string.match(id, '^(.+)%.[^.]*%.(%d+)$') end

-- The records of an entry, in order, and how the id of each is known again.
local function records_of(entry)
  local records, kinds, fields = {}, {}, entry[2]
  for n = 1, #fields, 2 do
    local name, text = fields[n], fields[n + 1]
    local kind = string.sub(name, 1, 1)
    if #name == 1 then
      records[#records + 1], kinds[#kinds + 1] = text, kind
    else
      local at = 1
      for length in string.gmatch(name, '%d+') do
        records[#records + 1], kinds[#kinds + 1] = string.sub(text, at, at + length - 1), kind
        at = at + length
      end
    end
  end
  return records, kinds
end

-- When the last message of an entry was accepted, in ms.
local function accepted(entry)
  local fields = entry[2]
  local name, text = fields[#fields - 1], fields[#fields]
  local length = string.match(name, '%d+$')
  return tonumber(string.match(text, '^%d+', length and #text + 1 - length or 1))
end

-- The entries of a history that is a text.
local function entries_in(text)
  local entries, stop = {}, string.find(text, '\n', 1, true)
  local last = tonumber(string.sub(text, 1, stop - 1))
  while stop < #text do
    local at = stop + 1
    stop = string.find(text, '\n', at, true)
    local name, length = string.match(string.sub(text, at, stop - 1), '^(.*) (%d+)$')
    local _, messages = string.gsub(name, '%d+', '')
    last = last + math.max(messages, 1)
    entries[#entries + 1] = { int(last) .. '-1', { name, string.sub(text, stop + 1, stop + length) } }
    stop = stop + length
  end
  return entries
end

-- What reads a history: of an offset and a number, as many entries from the one on in which that message stands.
local function reader(history)
  if redis.call('TYPE', history).ok ~= 'string' then
    return function(offset, count)
      return redis.call('XRANGE', history, int(offset) .. '-1', '+', 'COUNT', int(count))
    end
  end
  local all = entries_in(redis.call('GET', history))
  return function(offset, count)
    local found = {}
    for _, entry in ipairs(all) do
      if #found == count then break end
      if offset_of(entry) >= offset then found[#found + 1] = entry end
    end
    return found
  end
end

-- The message at `offset`, or the first one after it: its offset and its record.
local function message_from(from, offset)
  local entry = from(offset, 1)[1]
  if not entry then return nil end
  local last, records = offset_of(entry), records_of(entry)
  local at = math.max(offset, last + 1 - #records)
  return at, records[#records - (last - at)]
end
