#!lua flags=no-writes
-- What counts in a stretch of history, a bounded part of it at once.
--
-- KEYS  history
-- ARGV  after which offset, up to which one, how many to look at
-- The answer: up to where it looked, how many have no conflation key, then key and newest offset of each key.
local last, plain, newest = tonumber(ARGV[1]), 0, {}
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-1', ARGV[2] .. '-1', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
  last = tonumber(string.match(entry[1], '^%d+'))
  local record = entry[2][2]
  local stop = string.find(record, '\n', 1, true)
  local length = tonumber(string.match(string.sub(record, 1, stop), ' (%S+)\n$'))
  if length then
    newest[string.sub(record, stop + 1, stop + length)] = last
  else
    plain = plain + 1
  end
end
if #entries < tonumber(ARGV[3]) then last = tonumber(ARGV[2]) end
local answer = { last, plain }
for key, offset in pairs(newest) do
  answer[#answer + 1] = key
  answer[#answer + 1] = offset
end
return answer
