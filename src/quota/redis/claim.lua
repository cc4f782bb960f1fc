-- A node's count of one user, if with it no more are there over all nodes than may be.
-- KEYS: a hash: of each node the number of its newest count, its connections, and the rooms that these are in.
-- ARGV: node, number, connections, how many there may be in all (0: any), how many different rooms there may be in all
-- (0: any), how long this is kept in ms, how many nodes are dead, those, then the rooms.
-- Answers whether it was taken, and which other nodes have written a count. May be run twice.
local key, node, number, connections = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most, most_rooms, dead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
for i = 8, 7 + dead do
  if ARGV[i] ~= node then
    redis.call('HDEL', key, ARGV[i])
  end
end
local seen, different, own = {}, 0, {}
local function see(room)
  if not seen[room] then
    seen[room] = true
    different = different + 1
  end
end
for i = 8 + dead, #ARGV do
  see(ARGV[i])
  own[#own + 1] = ARGV[i]
end
local sum, others, before = connections, {}, 0
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local of, count, rooms = string.match(all[i + 1], '^(%d+) (%d+) ?(.*)$')
  if all[i] == node then
    before = tonumber(of)
  else
    others[#others + 1] = all[i]
    sum = sum + tonumber(count)
    for room in string.gmatch(rooms, '%S+') do
      see(room)
    end
  end
end
if (most > 0 and sum > most) or (most_rooms > 0 and different > most_rooms) then
  return { 0, others }
end
-- An older count that comes late changes nothing.
if before < number then
  redis.call('HSET', key, node, string.format('%.0f %d %s', number, connections, table.concat(own, ' ')))
end
redis.call('PEXPIRE', key, ARGV[6])
return { 1, others }
