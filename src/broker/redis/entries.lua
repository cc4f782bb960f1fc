-- The entries of a history. This text stands before each script that reads them.
--
-- An entry holds the messages that one call appended to the channel, in order; its id is the offset of the last of
-- them, and `-1`. The name of a field says how ids of its messages are known again: `m` each by itself, `c` by the newest
-- number of their row, `n` by other messages. Behind it may stand lengths: then it holds as many messages, without
-- anything between them.

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

-- The message at `offset`, or the first one after it: its offset and its record.
local function message_from(history, offset)
  local entry = redis.call('XRANGE', history, int(offset) .. '-1', '+', 'COUNT', '1')[1]
  if not entry then return nil end
  local last, records = offset_of(entry), records_of(entry)
  local at = math.max(offset, last + 1 - #records)
  return at, records[#records - (last - at)]
end
