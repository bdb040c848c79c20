-- Counts an attempt in all its buckets, or in none while any of them waits (services/auth/domain/attempts.py).
--
-- KEYS: one hash for each bucket. ARGV: now in Unix milliseconds, the step (1 counts, -1 gives back), then for each
-- bucket its field, free, most, first wait, longest wait, forget, in milliseconds.
-- A field holds "tries:until:last". Returns for how many milliseconds nothing may be tried, 0 when it was counted; and
-- how many tries the first bucket holds then.
local now, step = tonumber(ARGV[1]), tonumber(ARGV[2])
local held, left = {}, 0
for i, key in ipairs(KEYS) do
  local at = 3 + (i - 1) * 6
  local stored = redis.call('HGET', key, ARGV[at])
  local tries, till, last = 0, 0, 0
  if stored then
    local a, b, c = string.match(stored, '^(%d+):(%d+):(%d+)$')
    tries, till, last = tonumber(a), tonumber(b), tonumber(c)
  end
  if step > 0 then
    if now - last >= tonumber(ARGV[at + 5]) then tries, till = 0, 0 end
    left = math.max(left, till - now)
  end
  held[i] = {tries, till, last}
end
if left > 0 then return {left, 0} end
for i, key in ipairs(KEYS) do
  local at = 3 + (i - 1) * 6
  local free, most, forget = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 5])
  local tries, till, last = math.max(0, held[i][1] + step), 0, held[i][3]
  if step > 0 then
    last = now
    if tries >= most then
      till = now + forget
    elseif tries >= free then
      till = now + math.min(tonumber(ARGV[at + 4]), tonumber(ARGV[at + 3]) * 2 ^ math.min(tries - free, 30))
    end
  elseif tries >= free then
    till = held[i][2]
  end
  redis.call('HSET', key, ARGV[at], string.format('%.0f:%.0f:%.0f', tries, till, last))
  redis.call('PEXPIRE', key, math.max(redis.call('PTTL', key), forget))
end
return {0, math.max(0, held[1][1] + step)}
