-- Removes a worker's record, if this incarnation holds it.
-- KEYS: leases, records. ARGV: worker id, incarnation.
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record or cjson.decode(record)['incarnation'] ~= ARGV[2] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
