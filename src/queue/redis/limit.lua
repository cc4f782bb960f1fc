-- Says how many jobs of lanes may run at once. ARGV: publish, then lane and number, or nothing for no limit, of each.
for i = 2, #ARGV, 2 do
  local lane, limit = ARGV[i], ARGV[i + 1]
  if limit == '' then redis.call('HDEL', R .. ':limits', lane) else redis.call('HSET', R .. ':limits', lane, limit) end
  lanes[lane] = true
end
settle()
return 0
