-- Takes jobs for a worker. ARGV: publish, worker, lease in ms, how many at most, then the test types.
local worker, lease_ms, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claims = {}
while #claims < most do
  local id, ready, best
  for i = 5, #ARGV do
    local key = R .. ':r:' .. ARGV[i]
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if head[1] and (not best or tonumber(head[2]) < best) then
      id, ready, best = head[1], key, tonumber(head[2])
    end
  end
  if not id then break end
  local job = load(id)
  if job then
    depart(job)
    job.state, job.worker, job.started = 'running', worker, int(now)
    job.attempt = int(tonumber(job.attempt) + 1)
    -- By the clock as well: a queue that lost its newest changes must not give out a token twice.
    job.fence = int(math.max(tonumber(job.fence) + 1, now_us))
    job.error = nil
    arrive(job, lease_ms)
    tell(job, 'started', nil, depth())
    claims[#claims + 1] = save(job, 'error')
  else
    redis.call('ZREM', ready, id)
  end
end
return claims
