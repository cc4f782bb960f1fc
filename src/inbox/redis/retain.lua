-- Removes entries from before a time, at most a number of them; answers how many.
-- KEYS: base, shared. ARGV: channel, time, most.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local removed, before = 0, tonumber(ARGV[2])
for _, id in ipairs(redis.call('ZRANGE', box.all, 0, ARGV[3] - 1)) do
  local state = box.load(id)
  if state[AT] >= before then
    break
  end
  box.remove(id, state)
  removed = removed + 1
end
if redis.call('EXISTS', box.all) == 0 then
  -- If the entries went by themselves, nobody has counted them out.
  box.count(-(redis.call('HGET', KEYS[2], 'c' .. ARGV[1]) or 0))
end
box.age()
return removed
