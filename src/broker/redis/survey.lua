-- What counts in a stretch of history, a bounded part of it at once.
--
-- KEYS  history
-- ARGV  after which offset, up to which one, how many to look at
-- The answer: up to where it looked, how many have no conflation key, then key and newest offset of each key.
local last, upto, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local from, plain, newest, looked = reader(KEYS[1]), 0, {}, 0
while last < upto and looked < most do
  local entries = from(last + 1, 64)
  if #entries == 0 then last = upto end
  for _, entry in ipairs(entries) do
    local records, ends = records_of(entry), offset_of(entry)
    for n, record in ipairs(records) do
      local offset = ends - #records + n
      if offset > last and offset <= upto then
        local stop = string.find(record, '\n', 1, true)
        local length = tonumber(string.match(string.sub(record, 1, stop), ' (%S+)\n$'))
        if length then
          newest[string.sub(record, stop + 1, stop + length)] = offset
        else
          plain = plain + 1
        end
        looked = looked + 1
      end
    end
    last = math.min(ends, upto)
  end
end
local answer = { last, plain }
for key, offset in pairs(newest) do
  answer[#answer + 1] = key
  answer[#answer + 1] = offset
end
return answer
