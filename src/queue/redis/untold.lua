-- Reads what is to be told before beginnings. ARGV: publish, how many jobs at most, then the jobs that the beginnings name,
-- the most urgent first. The answer: these, and those that their own untold beginnings name, and so on; nothing of a job
-- that is gone or cannot be read.
local most = tonumber(ARGV[2])
local found, wanted, known = {}, {}, {}
for i = 3, #ARGV do wanted[#wanted + 1] = ARGV[i] end
local n = 1
while wanted[n] and n <= most do
  local id = wanted[n]
  if not known[id] then
    known[id] = true
    found[#found + 1] = look(id, function(job)
      for field, value in pairs(job) do
        -- As `note_added` has it.
        local before = string.sub(field, 1, 2) == 'o:' and string.match(value, '^%["added",.* ([^ "]+)"%]$')
        if before then wanted[#wanted + 1] = before end
      end
      return whole(job)
    end)
  end
  n = n + 1
end
return { found, { unpack(wanted, n) } }
