-- Forgets news that were told. ARGV: publish, then job and number of each.
for i = 2, #ARGV, 2 do
  redis.call('HDEL', R .. ':j:' .. ARGV[i], 'o:' .. ARGV[i + 1])
  redis.call('ZREM', R .. ':out', ARGV[i] .. ' ' .. ARGV[i + 1])
end
return 0
