-- Marks entries as read, or confirms them. Where one is missing nothing is changed, unless that is of no concern.
-- KEYS: base, shared. ARGV: channel, `read` or `confirm`, time, `all` or `known`, then ids.
-- Answers how many were changed, how many are left, and the first id that is missing or ''.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local now, changed, left = tonumber(ARGV[3]), 0, 0
if ARGV[4] == 'all' then
  for i = 5, #ARGV do
    if redis.call('HEXISTS', KEYS[1], 's' .. ARGV[i]) == 0 then
      return { 0, 0, ARGV[i] }
    end
  end
end
for i = 5, #ARGV do
  local id, state = ARGV[i], box.load(ARGV[i])
  if ARGV[2] == 'read' then
    if state and state[STATUS] == 'unread' then
      state[STATUS], state[READ] = 'read', now
      box.save(id, state)
      box.no_more_unread(id)
      changed = changed + 1
    end
  elseif state and not state[CONFIRMED] then
    box.confirm(id, state, now)
    changed = changed + 1
  end
end
if ARGV[2] == 'read' then
  left = redis.call('ZCARD', box.unread)
else
  for _, id in ipairs(redis.call('ZRANGE', box.waiting, 0, -1)) do
    if box.is_offline(box.load(id)) then
      left = left + 1
    end
  end
end
return { changed, left, '' }
