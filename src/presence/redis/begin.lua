-- A node begins to count, as `incarnation`. Answers the incarnation of another process that had this name, which
-- has to be taken out first, or '' and what it counted so far.
-- KEYS: base. ARGV: node, process, incarnation.
local before = incarnation(KEYS[1], ARGV[1])
if before then
  local alive = string.gsub(before, '^%-', '')
  if string.sub(alive, 1, #ARGV[2]) ~= ARGV[2] then
    return { alive, {} }
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' 0')
return { '', redis.call('HKEYS', KEYS[1] .. 'n:' .. ARGV[1]) }
