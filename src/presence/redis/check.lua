-- What is known of a node, which keeps all of it for another while.
-- KEYS: base. ARGV: node, how long in ms.
tally(KEYS[1], ARGV[1], false, 0, ARGV[2]).keep()
return redis.call('HGET', KEYS[1], ARGV[1]) or ''
