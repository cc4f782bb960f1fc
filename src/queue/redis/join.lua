-- Makes known what workers handle. ARGV: publish, for how long in ms, then worker and types of each.
for i = 3, #ARGV, 2 do
  redis.call('HSET', R .. ':types', ARGV[i], ARGV[i + 1])
  redis.call('ZADD', R .. ':seen', int(now + tonumber(ARGV[2])), ARGV[i])
end
return redis.call('HLEN', R .. ':types')
