-- Decides rate limits by the generic cell rate algorithm, on the store's own clock.
--
-- KEYS: the limits of all requests, one after the other. Each holds "arrival/emission": the theoretical arrival time and
-- the emission it was reckoned with, in microseconds.
-- ARGV: for each request its number of limits, then for each limit: emission, tolerance and increment in microseconds,
-- the units wanted as a lease, and 1 for a limit in shadow. A negative increment gives units back.
-- Returns, for each limit: its backlog after the decision, how long until it would have let the request through (0 when
-- it does), both in microseconds, and the units leased. A request is let through when all its limits do that are not in
-- shadow; otherwise none is moved.
local margin_milliseconds = 1000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local arrivals = {}
local emissions = {}
for index, key in ipairs(KEYS) do
  if arrivals[key] == nil then
    local arrival, emission = string.match(stored[index] or '', '^(%d+)/(%d+)$')
    arrivals[key] = math.max(tonumber(arrival or 0), now)
    emissions[key] = tonumber(emission or 0)
  end
end
local moved = {}

-- After a quota was changed, what was used stays used, in units; a whole quota is the most that is owed.
local function reckon(name, emission, tolerance)
  local before = emissions[name]
  if before ~= emission then
    if before ~= 0 then
      local owed = math.ceil((arrivals[name] - now) / before * emission)
      arrivals[name] = now + math.min(owed, tolerance)
      moved[name] = true
    end
    emissions[name] = emission
  end
end

local answer = {}
local key = 0
local argument = 1
while argument <= #ARGV do
  local limits = tonumber(ARGV[argument])
  local admitted = true
  local waits = {}
  for limit = 1, limits do
    local at = argument + 5 * limit - 4
    local name = KEYS[key + limit]
    local tolerance = tonumber(ARGV[at + 1])
    reckon(name, tonumber(ARGV[at]), tolerance)
    local wait = arrivals[name] + tonumber(ARGV[at + 2]) - tolerance - now
    waits[limit] = math.max(wait, 0)
    admitted = admitted and (wait <= 0 or ARGV[at + 4] == '1')
  end
  for limit = 1, limits do
    local at = argument + 5 * limit - 4
    local name = KEYS[key + limit]
    local leased = 0
    if admitted and waits[limit] == 0 then
      local emission = tonumber(ARGV[at])
      local arrival = math.max(arrivals[name] + tonumber(ARGV[at + 2]), now)
      -- The last fifth of a quota is never leased: near its end every unit is counted here.
      local spare = math.floor((tonumber(ARGV[at + 1]) * 4 / 5 - (arrival - now)) / emission)
      leased = math.max(0, math.min(spare, tonumber(ARGV[at + 3])))
      arrivals[name] = arrival + leased * emission
      moved[name] = true
    end
    answer[#answer + 1] = arrivals[name] - now
    answer[#answer + 1] = waits[limit]
    answer[#answer + 1] = leased
  end
  key = key + limits
  argument = argument + 1 + 5 * limits
end
for name in pairs(moved) do
  local lifetime = math.ceil((arrivals[name] - now) / 1000) + margin_milliseconds
  redis.call('SET', name, string.format('%.0f/%.0f', arrivals[name], emissions[name]), 'PX', lifetime)
end
return answer
