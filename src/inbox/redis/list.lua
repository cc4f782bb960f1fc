-- A page of a list, oldest first, no longer than a number of entries and of bytes but at least one entry, and how
-- many the whole list has.
-- KEYS: base, shared. ARGV: channel, `unread` or `offline`, after which sequence number, until which time or '',
-- entries, bytes.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local after, till, most, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local total, more, rows = 0, 0, {}

local function add(id, state)
  local row = box.row(id, state)
  bytes = bytes - #row[11]
  if #rows > 0 and (#rows >= most or bytes < 0) then
    more = 1
    return false
  end
  rows[#rows + 1] = row
  return true
end

if ARGV[2] == 'unread' then
  total = redis.call('ZCARD', box.unread)
  for _, id in ipairs(redis.call('ZRANGE', box.unread, '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, most + 1)) do
    if not add(id, box.load(id)) then
      break
    end
  end
else
  for _, id in ipairs(redis.call('ZRANGE', box.waiting, 0, -1)) do
    local state = box.load(id)
    if box.is_offline(state) and (not till or state[AT] <= till) then
      total = total + 1
      if state[SEQ] > after and more == 0 then
        add(id, state)
      end
    end
  end
end
return { total, more, rows }
