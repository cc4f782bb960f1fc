-- Confirms all entries up to a place; answers how many.
-- KEYS: base, shared. ARGV: channel, epoch, offset, time.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local offset, now, confirmed = tonumber(ARGV[3]), tonumber(ARGV[4]), 0
for _, id in ipairs(redis.call('ZRANGE', box.waiting, 0, -1)) do
  local state = box.load(id)
  if state[EPOCH] == ARGV[2] then
    -- Within an epoch offsets rise with the sequence numbers.
    if state[OFFSET] > offset then
      break
    end
    box.confirm(id, state, now)
    confirmed = confirmed + 1
  end
end
return confirmed
