-- Says how many jobs of lanes may run at once. ARGV: publish, then lane and number, or nothing for no limit, of each.
-- The answer: when they were set, which rises with each time.
-- Who has no lease does not run, whatever became of it while the lane had no limit.
for i = 2, #ARGV, 2 do
  local lane, limit = ARGV[i], ARGV[i + 1]
  if limit == '' then redis.call('HDEL', R .. ':limits', lane) else redis.call('HSET', R .. ':limits', lane, limit) end
  for _, id in ipairs(redis.call('SMEMBERS', R .. ':l:' .. lane)) do
    if not redis.call('ZSCORE', R .. ':lease', id) then redis.call('SREM', R .. ':l:' .. lane, id) end
  end
  lanes[lane] = true
end
settle()
return set_limited(0)
