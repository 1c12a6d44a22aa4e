#!lua flags=no-writes
-- How much of each of these keys there is, in each status of the engine's; how much of it can be claimed now, and since when
-- the oldest of that waits; its counts. And the outbox: how many events, and since when the oldest waits.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock index settings

local STATUSES = { 'scheduled', 'not_started', 'started', 'completed', 'failed', 'cancelled' }
local COUNTS = { 'refused_claims', 'lost_locks', 'expired_locks' }

-- When the longest waiting of those in line got ready. The line is ordered by priority first, so each that has any is asked.
local function oldest_in_line(name)
  local oldest, from = nil, 0
  while true do
    local first = index.ask('ZRANGEBYSCORE', name, clock.text(from), '+inf', 'WITHSCORES', 'LIMIT', 0, 1) or {}
    if not first[2] then
      return oldest
    end
    local score = tonumber(first[2])
    local band = math.floor(score / index.band)
    oldest = clock.earlier(oldest, math.floor((score - band * index.band) / 1000) + index.epoch_ms)
    from = (band + 1) * index.band
  end
end

-- Of a set of that many, whose scores are times: how many have come, and the first of them.
local function due(name, size)
  local first = size > 0 and index.ask('ZRANGE', name, 0, 0, 'WITHSCORES') or {}
  if not first[2] or tonumber(first[2]) > clock.ms then
    return 0, nil
  end
  return index.ask('ZCOUNT', name, '-inf', clock.text(clock.ms)), tonumber(first[2])
end

-- How many can be claimed, and since when the oldest of them waits.
local function claimable(key, scheduled, waiting, started)
  local scheduled, scheduled_ms = due(index.name(key, 'scheduled'), scheduled)
  local expired, expired_ms = due(index.name(key, 'started'), started)
  local waiting_ms = waiting > 0 and oldest_in_line(index.name(key, 'not_started')) or nil
  return waiting + scheduled + expired, clock.earlier(clock.earlier(waiting_ms, scheduled_ms), expired_ms)
end

local function depth(key)
  local statuses = {}
  for place, status in ipairs(STATUSES) do
    statuses[place] = index.ask('ZCARD', index.name(key, status)) or 0
  end
  local counts = index.ask('HMGET', partition .. ':n:' .. key, unpack(COUNTS)) or {}
  for place in ipairs(COUNTS) do
    counts[place] = tonumber(counts[place] or 0)
  end
  local paused, count, oldest_ms = (settings.of(key) or {}).paused and true or false, 0, nil
  if not paused then
    count, oldest_ms = claimable(key, unpack(statuses))
  end
  return { index.ask('ZCARD', index.name(key, '')) or 0, statuses, counts, count, oldest_ms or false, paused }
end

return function()
  local depths = {}
  for place, key in ipairs(request.keys) do
    depths[place] = depth(key)
  end
  local outbox = partition .. ':outbox'
  local first = (index.ask('XRANGE', outbox, '-', '+', 'COUNT', 1) or {})[1]
  local since = first and tonumber(string.match(first[1], '^%d+')) or false
  return cmsgpack.pack({ clock.ms, depths, index.ask('XLEN', outbox) or 0, since })
end
