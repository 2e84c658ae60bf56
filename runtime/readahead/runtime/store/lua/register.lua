-- Puts a worker's record in, replacing any other incarnation's.
-- KEYS: leases, records. ARGV: worker id, record as JSON, lease in ms.
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('ZADD', KEYS[1], ends, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
-- A key lives as long as the longest lease in it.
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), tonumber(ARGV[3])))
end
return 1
