-- Extends a lease. 0 iff it has run out or another incarnation holds it.
-- KEYS: leases, records. ARGV: worker id, incarnation, lease in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not ends or not record or tonumber(ends) <= now then
  return 0
end
if cjson.decode(record)['incarnation'] ~= ARGV[2] then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), tonumber(ARGV[3])))
end
return 1
