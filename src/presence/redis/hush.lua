-- Gives the right to tell back. KEYS: base. ARGV: teller.
if redis.call('GET', KEYS[1] .. 'l') == ARGV[1] then
  redis.call('DEL', KEYS[1] .. 'l')
end
