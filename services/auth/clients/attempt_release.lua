-- Ends the waits in all buckets of a key and keeps what was counted; those that are full stay shut.
--
-- KEYS: one hash. ARGV: now in Unix milliseconds, most. Returns how many stay shut.
local now, most, shut = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local tries, till, last = string.match(stored[i + 1], '^(%d+):(%d+):(%d+)$')
  if tonumber(tries) < most then
    redis.call('HSET', KEYS[1], stored[i], tries .. ':0:' .. last)
  elseif tonumber(till) > now then
    shut = shut + 1
  end
end
return shut
