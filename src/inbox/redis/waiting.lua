-- The offset of the oldest entry that a returning user has to be given, among those that the channel may still
-- have; none if there is none.
-- KEYS: base, shared, the channel. ARGV: channel.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local own = redis.call('HMGET', KEYS[3], 'epoch', 'oldest')
local oldest, found = tonumber(own[2]) or 0, nil

local function look(list, concerns)
  for _, id in ipairs(redis.call('ZRANGE', list, 0, -1)) do
    local state = box.load(id)
    if state[EPOCH] == own[1] and state[OFFSET] >= oldest and concerns(state) then
      found = math.min(found or state[OFFSET], state[OFFSET])
      return
    end
  end
end

look(box.unread, function() return true end)
look(box.waiting, function(state) return box.is_offline(state) and state[STATUS] ~= 'recalled' end)
return { own[1] or '', found or 0 }
