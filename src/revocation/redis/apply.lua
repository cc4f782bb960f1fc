#!lua
-- Shuts a user or a token out, or lets a user in again; 1 if that changed something, -1 if there is no room.
-- KEYS: users, tokens, the number of the newest change, at which number users were let in.
-- ARGV: block | unblock | revoke, who, until when, now, the most of a kind, what the number begins with, which number
-- the caller saw last, how many there are to a history, 1 if the list had it at that number.
local users, tokens, version, lifted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local what, who, till, now, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local known, span, again = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
local function history(number)
  return math.floor(number / span)
end

local at = tonumber(redis.call('GET', version) or 0)
if at == 0 or (history(at) == history(known) and at < known) then
  -- What the caller saw was lost; by the number alone others would not see that once there are as many changes again.
  redis.call('SET', version, ARGV[6])
  at = tonumber(ARGV[6])
end
redis.call('ZREMRANGEBYSCORE', tokens, '-inf', now)
local changed
if what == 'unblock' then
  changed = redis.call('SREM', users, who)
elseif what == 'block' then
  local since = again and tonumber(redis.call('ZSCORE', lifted, who) or nil)
  if since then
    local is_same = history(since) == history(known)
    if (is_same and since > known) or (not is_same and history(since) == history(at)) then
      return 0
    end
  end
  if redis.call('SISMEMBER', users, who) == 0 and redis.call('SCARD', users) >= most then
    return -1
  end
  changed = redis.call('SADD', users, who)
  redis.call('ZREM', lifted, who)
elseif till <= tonumber(now) then
  return 0
else
  if not redis.call('ZSCORE', tokens, who) and redis.call('ZCARD', tokens) >= most then
    return -1
  end
  changed = redis.call('ZADD', tokens, 'GT', 'CH', till, who)
end
-- Also where nothing changed: the answer to the first call may have been lost before a node looked.
local number = redis.call('INCR', version)
if what == 'unblock' then
  -- Also where nobody was shut out: a node may be about to put them back.
  redis.call('ZADD', lifted, number, who)
  redis.call('ZREMRANGEBYRANK', lifted, 0, -most - 1)
end
return changed
