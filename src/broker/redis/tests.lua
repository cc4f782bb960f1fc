-- The lists of tests. This text stands before each script that changes them together with snapshots.
--
-- index      string  how many tests were listed so far
-- index all  zset    all of them by their numbers; index STATE  zset  the same for each state
-- index seen zset    when each was listed, or looked after
--
-- Puts tests into the lists of their states. Of each: its name, its state, the state and the number under which its
-- channel says that it is listed, and whether it begins anew, which makes it the newest. Sets the number.
local function list_tests(index, now, tests)
  local unknown, names = {}, {}
  for _, test in ipairs(tests) do
    if not test.seq then
      unknown[#unknown + 1] = test
      names[#names + 1] = test.name
    end
  end
  if #unknown > 0 then
    local scores = redis.call('ZMSCORE', index .. 'all', unpack(names))
    for n, test in ipairs(unknown) do
      if scores[n] then
        -- Its channel was forgotten, or lost, and the lists were not.
        test.seq = scores[n]
        for _, state in ipairs({'scheduled', 'queued', 'running', 'retrying', 'completed', 'failed', 'cancelled'}) do
          redis.call('ZREM', index .. state, test.name)
        end
      end
    end
  end
  local newest, all, seen, gone, come = 0, {}, {}, {}, {}
  for _, test in ipairs(tests) do
    if test.anew or not test.seq then
      newest = newest + 1
      all[#all + 1], all[#all + 2] = newest, test.name
      seen[#seen + 1], seen[#seen + 2] = now, test.name
    end
  end
  if newest > 0 then
    local last = redis.call('INCRBY', index, newest)
    for n = 1, #all, 2 do all[n] = string.format('%d', last - newest + all[n]) end
    redis.call('ZADD', index .. 'all', unpack(all))
    redis.call('ZADD', index .. 'seen', unpack(seen))
    newest = last - newest
  end
  for _, test in ipairs(tests) do
    if test.anew or not test.seq then
      newest = newest + 1
      test.seq = string.format('%d', newest)
    end
    if test.was and test.was ~= test.state then
      local list = gone[test.was] or {}
      gone[test.was], list[#list + 1] = list, test.name
    end
    local list = come[test.state] or {}
    come[test.state] = list
    list[#list + 1], list[#list + 2] = test.seq, test.name
  end
  for state, list in pairs(gone) do redis.call('ZREM', index .. state, unpack(list)) end
  for state, list in pairs(come) do redis.call('ZADD', index .. state, unpack(list)) end
end
