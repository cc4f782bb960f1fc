-- Notes that messages were written to devices, or were not after all. Each device that takes a message as it comes
-- is known by a name, so that to note it twice changes nothing.
-- KEYS: base, shared. ARGV: channel, `delivered` or `failed`, time, then for each message epoch, offset and taker;
-- no taker where it was not written as it came.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local now = tonumber(ARGV[3])

local function find(takers, taker)
  for i, known in ipairs(takers) do
    if known == taker then
      return i
    end
  end
end

for i = 4, #ARGV, 3 do
  local id, taker = box.at(ARGV[i], ARGV[i + 1]), ARGV[i + 2]
  local state = id and box.load(id)
  if state and not (state[CONFIRMED] and state[DELIVERED]) then
    local place = find(state[TAKERS], taker)
    if ARGV[2] == 'delivered' then
      if taker ~= '' and not place then
        table.insert(state[TAKERS], taker)
      end
      state[DELIVERED] = state[DELIVERED] or now
      box.save(id, state)
    elseif place or taker == '' then
      if place then
        table.remove(state[TAKERS], place)
      end
      if #state[TAKERS] == 0 then
        state[DELIVERED] = false
      end
      box.save(id, state)
    end
  end
end
