-- Counts jobs, and reads which running ones are to be cancelled. ARGV: publish, then the states.
local counts = {}
for i = 2, #ARGV do counts[#counts + 1] = redis.call('ZCARD', R .. ':s:' .. ARGV[i]) end
return counts
