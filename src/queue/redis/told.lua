-- Forgets news that were told. ARGV: publish, then job and number of each.
local fields, entries = {}, {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  fields[id] = fields[id] or {}
  table.insert(fields[id], 'o:' .. ARGV[i + 1])
  entries[#entries + 1] = id .. ' ' .. ARGV[i + 1]
end
for id, list in pairs(fields) do
  -- That one cannot be read is no matter of the others.
  pcall(in_steps, 'HDEL', R .. ':j:' .. id, list)
end
in_steps('ZREM', R .. ':out', entries)
return 0
