-- Removes the own keys of a node, and of those of its rooms that are named: if it wrote them as `incarnation`, or
-- if none is named and it has no lease.
-- KEYS: base. ARGV: incarnation or '', then rooms. Answers whether they are removed.
local base = KEYS[1]
if ARGV[1] == '' then
  if redis.call('EXISTS', base .. 'l') == 1 then
    return 0
  end
elseif string.match(redis.call('GET', base .. 'v') or '', '^%S+') ~= ARGV[1] then
  return 0
end
for i = 2, #ARGV do
  redis.call('DEL', base .. 'r:' .. ARGV[i])
end
redis.call('DEL', base .. 'c', base .. 'd', base .. 'q', base .. 'l')
return 1
