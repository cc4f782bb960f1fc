-- Notes that a tick of a schedule was fired. ARGV: publish, schedule, tick, how many are kept, for how long in ms.
local key = R .. ':fired:' .. ARGV[2]
redis.call('ZADD', key, ARGV[3], ARGV[3])
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. int(now - tonumber(ARGV[5])))
redis.call('ZREMRANGEBYRANK', key, 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIRE', key, ARGV[5])
return 0
