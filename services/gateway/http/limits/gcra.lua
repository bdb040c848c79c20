-- Decides rate limits by the generic cell rate algorithm, on the store's own clock.
--
-- KEYS: the limits of all requests, one after the other. Each holds the theoretical arrival time in microseconds.
-- ARGV: for each request: its number of limits, its cost, then for each limit emission and tolerance in microseconds.
-- Returns, for each limit: its backlog after the decision, and how long until it would have let the request through
-- (0 when it does), both in microseconds. A request is let through when all its limits do; otherwise none is moved.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local arrivals = {}
for index, key in ipairs(KEYS) do
  if arrivals[key] == nil then
    arrivals[key] = math.max(tonumber(stored[index] or 0), now)
  end
end
local answer = {}
local moved = {}
local key = 0
local argument = 1
while argument <= #ARGV do
  local limits = tonumber(ARGV[argument])
  local cost = tonumber(ARGV[argument + 1])
  argument = argument + 2
  local admitted = true
  local waits = {}
  for limit = 1, limits do
    local emission = tonumber(ARGV[argument + 2 * limit - 2])
    local tolerance = tonumber(ARGV[argument + 2 * limit - 1])
    local wait = arrivals[KEYS[key + limit]] + cost * emission - tolerance - now
    waits[limit] = math.max(wait, 0)
    admitted = admitted and wait <= 0
  end
  for limit = 1, limits do
    local name = KEYS[key + limit]
    if admitted then
      arrivals[name] = arrivals[name] + cost * tonumber(ARGV[argument + 2 * limit - 2])
      moved[name] = true
    end
    answer[#answer + 1] = arrivals[name] - now
    answer[#answer + 1] = waits[limit]
  end
  key = key + limits
  argument = argument + 2 * limits
end
for name in pairs(moved) do
  local backlog = math.ceil((arrivals[name] - now) / 1000)
  redis.call('SET', name, string.format('%.0f', arrivals[name]), 'PX', backlog + 1000)
end
return answer
