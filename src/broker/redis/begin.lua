-- Begins tests anew, each only if its snapshot is still the one that was decided on.
--
-- KEYS  per test its channel's meta; then, where there is one, the index of tests
-- ARGV  now in ms, life of a meta in ms, number of tests
--       per test: version, snapshot, test, state
-- A channel without an epoch gets it with its first message, or by whoever asks for its end.
-- In a cluster the index is on another server, and is told by another script.
-- The answer: per test -1, or the version that it has by now; and the snapshot of that version.
local now, count = ARGV[1], tonumber(ARGV[3])
local index = KEYS[count + 1]
local answer, begun, twice = {}, {}, {}
for n = 1, count do
  local at, meta = n * 4, KEYS[n]
  local earlier = twice[meta]
  local stored = redis.call('HMGET', meta, 'version', 'state', 'seq', 'epoch')
  local version = stored[1] or '0'
  if earlier then
    answer[n * 2 - 1], answer[n * 2] = earlier.version, earlier.text
  elseif version ~= ARGV[at] then
    answer[n * 2 - 1] = tonumber(version)
    answer[n * 2] = redis.call('HGET', meta, 'text') or ''
  else
    begun[#begun + 1] = {
      meta = meta, version = version + 1, text = ARGV[at + 1], name = ARGV[at + 2], state = ARGV[at + 3],
      was = stored[2], seq = stored[3], anew = true, known = stored[1] or stored[4],
    }
    twice[meta] = begun[#begun]
    answer[n * 2 - 1], answer[n * 2] = -1, ''
  end
end
if index then list_tests(index, now, begun) end
for _, test in ipairs(begun) do
  local fields = { 'version', string.format('%d', test.version), 'text', test.text }
  if index then
    fields[5], fields[6], fields[7], fields[8] = 'state', test.state, 'seq', test.seq
  end
  if test.known then
    redis.call('HSET', test.meta, unpack(fields))
    -- A channel that its messages keep for longer stays for longer.
    redis.call('PEXPIRE', test.meta, ARGV[2], 'GT')
  else
    -- There is no history whose life would be prolonged together with that of the meta.
    redis.call('HSET', test.meta, 'touched', now, unpack(fields))
    redis.call('PEXPIRE', test.meta, ARGV[2])
  end
end
return answer
