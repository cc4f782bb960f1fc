-- Removes what was told from the head of the list of what is to be told, and keeps the teller's right to tell.
-- KEYS: base. ARGV: teller, how long in ms, then what was told.
for i = 3, #ARGV do
  if redis.call('LINDEX', KEYS[1] .. 'o', 0) == ARGV[i] then
    redis.call('LPOP', KEYS[1] .. 'o')
  end
end
if redis.call('GET', KEYS[1] .. 'l') == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1] .. 'l', ARGV[2])
end
return redis.call('LLEN', KEYS[1] .. 'o')
