-- A batch of counts of one node, in their order; once, however often it comes.
-- KEYS: base. ARGV: node, incarnation, number of the batch, whether changes are told, how many may wait, how long
-- all this is kept in ms, then names, counts and times.
-- Answers whether the incarnation counts, and how much there is to be told now.
local base = KEYS[1]
local current, applied = incarnation(base, ARGV[1])
if current ~= ARGV[2] then
  return { 0, 0 }
end
local own = tally(base, ARGV[1], ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6])
if tonumber(applied) < tonumber(ARGV[3]) then
  for i = 7, #ARGV, 3 do
    own.set(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2])
  end
  redis.call('HSET', base, ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
  own.keep()
end
return { 1, redis.call('LLEN', base .. 'o') }
