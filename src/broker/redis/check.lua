-- Compares what somebody knows of a channel with what is there. If the store has gone back behind it, the channel
-- gets a new epoch, once, and everybody is told.
--
-- KEYS  meta, history
-- ARGV  known epoch, known offset, id of the message there (empty if unknown), a new epoch, how to publish,
--       life of a meta in ms, under which name to publish
-- The answer: epoch and top.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'top')
local epoch, top = found[1], tonumber(found[2] or 0)
local back = false
if not epoch then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'top', 0, 'oldest', 1)
  top, back = 0, true
elseif epoch == ARGV[1] then
  local offset = tonumber(ARGV[2])
  back = top < offset
  if not back and ARGV[3] ~= '' and offset > 0 then
    local stands, record = message_from(reader(KEYS[2]), offset)
    back = stands == offset and string.match(record, '^%d+ (%S+)') ~= ARGV[3]
  end
end
if back then
  epoch = ARGV[4]
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call(ARGV[5], string.sub(KEYS[1], 1, -2) .. ARGV[7], epoch .. ' ' .. top .. '\n')
end
return { epoch, top }
