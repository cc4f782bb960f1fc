-- The end of a channel, which gets an epoch if it has none.
--
-- KEYS  meta, history
-- ARGV  a new epoch, life of a meta in ms
-- The answer: epoch, top, and version and text of the snapshot where there is one.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'version', 'text')
local epoch, top = found[1], found[2] or '0'
if not epoch then
  epoch, top = ARGV[1], '0'
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'top', top, 'oldest', 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { epoch, tonumber(top), tonumber(found[3] or 0), found[4] or '' }
