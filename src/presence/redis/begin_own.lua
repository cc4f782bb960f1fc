-- A node begins to write what it has, as `incarnation`; what was there goes, with those of its rooms that are named.
-- KEYS: base. ARGV: incarnation, how long all this is kept in ms, then rooms.
redis.call('DEL', KEYS[1] .. 'c', KEYS[1] .. 'd')
for i = 3, #ARGV do
  redis.call('DEL', KEYS[1] .. 'r:' .. ARGV[i])
end
redis.call('SET', KEYS[1] .. 'v', ARGV[1] .. ' 0', 'PX', ARGV[2])
