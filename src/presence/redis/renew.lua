-- A node lives for another lease; answers the incarnation and the number of the last batch in its own keys.
-- KEYS: base. ARGV: lease in ms, how long everything else is kept in ms, what the node did so far.
redis.call('SET', KEYS[1] .. 'l', ARGV[3], 'PX', ARGV[1])
for _, name in ipairs({ 'v', 'c', 'd' }) do
  redis.call('PEXPIRE', KEYS[1] .. name, ARGV[2])
end
return redis.call('GET', KEYS[1] .. 'v') or ''
