-- Prolongs leases. ARGV: publish, lease in ms, then job and fence of each; what is held outside is renewed by its
-- reports alone. What cannot be read cannot be ended either, so that nobody holds it.
local until_ms = int(now + tonumber(ARGV[2]))
local statuses = {}
for i = 3, #ARGV, 2 do
  local held = redis.pcall('HMGET', R .. ':j:' .. ARGV[i], 'state', 'fence', 'cancel', 'secret')
  if held.err then
    statuses[#statuses + 1] = 'broken ' .. held.err
  elseif held[1] == 'running' and held[2] == ARGV[i + 1] and not held[4] then
    redis.call('ZADD', R .. ':lease', until_ms, ARGV[i])
    statuses[#statuses + 1] = held[3] == '1' and 'cancel' or 'held'
  else
    statuses[#statuses + 1] = 'lost'
  end
end
return statuses
