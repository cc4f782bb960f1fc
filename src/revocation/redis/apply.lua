#!lua
-- Shuts a user or a token out, or lets a user in again; 1 if that changed something, -1 if there is no room.
-- KEYS: users, tokens, the number of the newest change.
-- ARGV: block | unblock | revoke, who, until when, now, the most of a kind, what the number begins with.
local users, tokens, version = KEYS[1], KEYS[2], KEYS[3]
local what, who, till, now, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', tokens, '-inf', now)
local changed
if what == 'unblock' then
  changed = redis.call('SREM', users, who)
elseif what == 'block' then
  if redis.call('SISMEMBER', users, who) == 0 and redis.call('SCARD', users) >= most then
    return -1
  end
  changed = redis.call('SADD', users, who)
elseif till <= tonumber(now) then
  return 0
else
  if not redis.call('ZSCORE', tokens, who) and redis.call('ZCARD', tokens) >= most then
    return -1
  end
  changed = redis.call('ZADD', tokens, 'GT', 'CH', till, who)
end
redis.call('SET', version, ARGV[6], 'NX')
-- Also where nothing changed: the answer to the first call may have been lost before a node looked.
redis.call('INCR', version)
return changed
