-- Drops the records whose lease has run out; returns the others, as JSON.
-- KEYS: leases, records.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, worker_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('HDEL', KEYS[2], worker_id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local records = {}
for _, worker_id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  records[#records + 1] = redis.call('HGET', KEYS[2], worker_id) or nil
end
return records
