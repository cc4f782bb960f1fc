-- Takes a dead incarnation of a node out, a number of names per call: from the first call on it counts no more.
-- KEYS: base. ARGV: node, incarnation, whether changes are told, how many may wait, how long all this is kept in ms,
-- how many names.
-- Answers whether there is more to take out, and how much there is to be told.
local base = KEYS[1]
local current = incarnation(base, ARGV[1])
if current ~= ARGV[2] and current ~= '-' .. ARGV[2] then
  return { 0, 0 }
end
local own = tally(base, ARGV[1], ARGV[3] == '1', tonumber(ARGV[4]), ARGV[5])
redis.call('HSET', base, ARGV[1], '-' .. ARGV[2] .. ' 0')
for _, name in ipairs(redis.call('HRANDFIELD', own.own, ARGV[6]) or {}) do
  own.set(name, 0, 0)
end
if redis.call('EXISTS', own.own) == 1 then
  return { 1, redis.call('LLEN', base .. 'o') }
end
redis.call('HDEL', base, ARGV[1])
return { 0, redis.call('LLEN', base .. 'o') }
