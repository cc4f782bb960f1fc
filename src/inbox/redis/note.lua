-- Changes an inbox as a message wants that was just appended at `epoch` and `offset`. `word` is what `Notes::word`
-- said of it, `record` the message as it lies in its channel's history.
local function inbox_note(base, channel, word, id, epoch, offset, record)
  local told = cjson.decode(word)
  local box = inbox(base, told[2], channel)
  if told[1] == 'recall' then
    box.recall(told[3])
  else
    local stop = string.find(record, '\n', 1, true)
    local at, key = string.match(string.sub(record, 1, stop), '^(%d+) .* (%S+)\n$')
    local body = string.sub(record, stop + 1 + (tonumber(key) or 0))
    local state = { 0, epoch, offset, tonumber(at), 'unread', false, false, false, told[3], told[4], {} }
    box.add(id, state, body, told[5], told[6])
  end
end

