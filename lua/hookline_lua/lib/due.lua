-- What becomes due: scheduled items join the line, a new version and no event.
-- use: clock index item lock

local due = {}

-- What promotion and burial read and change: not the content, which may be large.
local CHANGED = { 'v', 's', 'at', 'p', 'ua', 'lu', 'tk', 'a', 'ma', 'cr', 'le' }

-- Promote at most so many items of a key -> how many were looked at, and the score of the last; as many as asked for,
-- there may be more from that score on.
function due.promote(key, most)
  local now, name = clock.text(clock.ms), index.name(key, 'scheduled')
  local found = redis.call('ZRANGEBYSCORE', name, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #found, 2 do
    local record = item.peek(key, found[i], CHANGED)
    if record.exists and record.fields.s == 'scheduled' and tonumber(record.fields.at or 0) <= clock.ms then
      item.open(record)
      item.set(record, 's', 'not_started')
      lock.advance(record)
      item.close(record)
    end
  end
  return #found / 2, found[#found]
end

-- An item whose lock has expired stays as it is, for whoever claims next, unless that would be once too often: then it
-- is buried. Returns whether.
function due.bury_exhausted(key, sort)
  local record = item.peek(key, sort, CHANGED)
  local ends = record.fields.s == 'started' and not lock.live(record.fields) and lock.exhausted(record)
  if ends then
    due.bury(record)
  end
  return ends
end

-- Keep it as a dead letter. No event either.
function due.bury(record)
  lock.count(record.key, 'expired_locks')
  item.open(record)
  lock.bury(record)
  item.close(record)
end

local function first_score(key, status, above)
  local found = redis.call('ZRANGEBYSCORE', index.name(key, status), above, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(found[2])
end

-- When something of a key becomes due or expires next, after now; or nil.
function due.next_ms(key)
  local now = '(' .. clock.text(clock.ms)
  local scheduled, started = first_score(key, 'scheduled', now), first_score(key, 'started', now)
  return scheduled and started and math.min(scheduled, started) or scheduled or started
end
