-- The entries of a history. This text stands before each script that reads them.
--
-- An entry holds the messages that one call appended to the channel, in order, each in a field of its own; its id
-- is the offset of the last of them, and `-1`.

-- A whole number as text: Redis takes long to write one that it is handed as a number.
local function int(n) return string.format('%d', n) end

local function offset_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- The message at `offset`, or the first one after it: its offset and its record.
local function message_from(history, offset)
  local entry = redis.call('XRANGE', history, int(offset) .. '-1', '+', 'COUNT', '1')[1]
  if not entry then return nil end
  local last, fields = offset_of(entry), entry[2]
  local at = math.max(offset, last + 1 - #fields / 2)
  return at, fields[#fields - 2 * (last - at)]
end
