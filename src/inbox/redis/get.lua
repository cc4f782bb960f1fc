-- One entry, if it is there.
-- KEYS: base, shared. ARGV: channel, id.
local box = inbox(KEYS[1], KEYS[2], ARGV[1])
local state = box.load(ARGV[2])
if not state then
  return {}
end
return { box.row(ARGV[2], state) }
