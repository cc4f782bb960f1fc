-- Holds a part of the queue back, or lets it go. ARGV: publish, 'pause' or 'resume', scope, by whom or nothing, why or
-- nothing, how many may be held back at once.
-- The answer: 'done' with the pause, now in ms, the number of the news, and what was untold before it; 'known' and the
-- pause, or nothing, where it is so already; 'full'.
local word, scope = ARGV[2], ARGV[3]
local known = redis.call('HGET', R .. ':paused', scope)
if (word == 'pause') == (known ~= false) then return { 'known', known or '' } end
local by = ''
if word == 'pause' then
  if redis.call('HLEN', R .. ':paused') >= tonumber(ARGV[6]) then return { 'full' } end
  known = '["' .. now_ms .. '",' .. text_of(ARGV[4]) .. ',' .. text_of(ARGV[5]) .. ']'
  redis.call('HSET', R .. ':paused', scope, known)
else
  by = ARGV[4]
  redis.call('HDEL', R .. ':paused', scope)
end
if string.find(scope, '/', 1, true) then show(scope) end
if word == 'resume' then publish('ready') end
local before = redis.call('HGETALL', R .. ':news')
-- By the clock, and a number of its own all the same.
local number = now_us
while redis.call('HSETNX', R .. ':news', int(number), '["' .. word .. '",' .. text_of(scope) .. ',' .. text_of(known) .. ','
  .. text_of(by) .. ',"' .. now_ms .. '"]') == 0 do number = number + 1 end
return { 'done', known, now_ms, int(number), before }
