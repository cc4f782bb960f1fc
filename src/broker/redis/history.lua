-- A stretch of history.
--
-- KEYS  meta, history
-- ARGV  after which offset, messages, bytes, size, no older than (in ms); the last two empty where no rules say so
-- The answer: epoch, top, oldest readable offset, then offset and record of each message; nothing if there is no
-- such channel.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'oldest')
if not found[1] then return {} end
local top, oldest = tonumber(found[2] or 0), tonumber(found[3] or 1)
local from = reader(KEYS[2])
local after, messages, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

-- The first offset that is young enough: messages stand in the order in which they were accepted, nearly.
local function young(low, cutoff)
  local high = top + 1
  while low < high do
    -- Most often the first one is.
    local middle = low
    if high < top + 1 or low ~= oldest then middle = math.floor((low + high) / 2) end
    local stands, record = message_from(from, middle)
    if not stands then return top + 1 end
    if tonumber(string.match(record, '^%d+')) >= cutoff then
      if middle == low then return stands end
      high = middle
    else
      low = stands + 1
    end
  end
  return low
end

if ARGV[4] ~= '' then
  oldest = math.max(oldest, top + 1 - tonumber(ARGV[4]))
  oldest = young(oldest, tonumber(ARGV[5]))
end

local answer = { found[1], top, oldest }
local at, taken, used = math.max(after + 1, oldest), 0, 0
-- An entry may hold one message or many: how many there are to an entry shows at the first few.
local step = 8
while at <= top and taken < messages do
  local entries = from(at, math.min(messages - taken, step))
  if #entries == 0 then break end
  local before = taken
  for _, entry in ipairs(entries) do
    local records, last = records_of(entry), offset_of(entry)
    at = math.max(at, last + 1 - #records)
    while at <= last do
      local record = records[#records - (last - at)]
      local head, key = string.match(record, '^([^\n]* (%S+))\n')
      used = used + #record - #head - 1 - (tonumber(key) or 0) + 48
      if taken == messages or (used > bytes and taken > 0) then return answer end
      answer[#answer + 1] = at
      answer[#answer + 1] = record
      taken, at = taken + 1, at + 1
    end
  end
  step = math.max(1, math.min(64, math.floor((messages - taken) * #entries / (taken - before))))
end
return answer
