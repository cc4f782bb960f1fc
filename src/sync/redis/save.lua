#!lua
-- Moves places of devices in one channel forward, in the channel's own epoch and up to its top only.
-- KEYS: the channel, then a place each. ARGV: how long a place is kept in ms, then an epoch and an offset each.
local own = redis.call('HMGET', KEYS[1], 'epoch', 'top')
local top = tonumber(own[2]) or 0
for i = 2, #KEYS do
  local epoch, offset = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if epoch == own[1] and tonumber(offset) <= top then
    local known = redis.call('GET', KEYS[i])
    local known_epoch, known_offset = string.match(known or '', '^(.*) (%d+)$')
    if known_epoch ~= epoch or tonumber(known_offset) <= tonumber(offset) then
      redis.call('SET', KEYS[i], epoch .. ' ' .. offset, 'PX', ARGV[1])
    end
  end
end
