-- Notes that a tick of a schedule was fired. ARGV: publish, schedule, tick, how many are kept, for how long in ms, and for
-- how long the newest one, which is never too old while it is looked after: it says up to when it was.
local key = R .. ':fired:' .. ARGV[2]
redis.call('ZADD', key, ARGV[3], ARGV[3])
local newest = redis.call('ZRANGE', key, -1, -1)[1]
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. int(math.min(now - tonumber(ARGV[5]), tonumber(newest))))
redis.call('ZREMRANGEBYRANK', key, 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIRE', key, ARGV[6])
return 0
