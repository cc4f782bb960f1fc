-- Which of some ids have an entry: a 1 or a 0 each.
-- KEYS: base, shared. ARGV: channel, then ids.
local known = {}
for i = 2, #ARGV do
  known[i - 1] = redis.call('HEXISTS', KEYS[1], 's' .. ARGV[i])
end
return known
