-- A batch of what a node has, in its own keys; once, however often it comes.
-- base l: its lease, base v: its incarnation and the number of the last batch, base c: its connections in their
-- order, base d: hash: what is known of each, base r: and a room: hash: its connections there of each user, and `` all
-- KEYS: base. ARGV: incarnation, number, how long all this is kept in ms, how many connections, then those with what is
-- known of them or '' if they went, then rooms, users and counts.
-- Answers whether the incarnation counts.
local base = KEYS[1]
local current, applied = string.match(redis.call('GET', base .. 'v') or '', '^(%S+) (%d+)$')
if current ~= ARGV[1] then
  return 0
end
if tonumber(applied) < tonumber(ARGV[2]) then
  local ends = 4 + 2 * ARGV[4]
  for i = 5, ends, 2 do
    if ARGV[i + 1] == '' then
      redis.call('HDEL', base .. 'd', ARGV[i])
      redis.call('ZREM', base .. 'c', ARGV[i])
    else
      redis.call('HSET', base .. 'd', ARGV[i], ARGV[i + 1])
      redis.call('ZADD', base .. 'c', 0, ARGV[i])
    end
  end
  for i = ends + 1, #ARGV, 3 do
    local room = base .. 'r:' .. ARGV[i]
    if ARGV[i + 2] == '0' then
      redis.call('HDEL', room, ARGV[i + 1])
    else
      redis.call('HSET', room, ARGV[i + 1], ARGV[i + 2])
      redis.call('PEXPIRE', room, ARGV[3])
    end
  end
  redis.call('SET', base .. 'v', ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
end
return 1
