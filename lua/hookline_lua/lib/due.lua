-- What becomes due, by time alone: scheduled items join the line, exhausted locks are buried, what need not be kept is
-- removed. Only a burial is an event.
-- use: clock settings index declared item lock outbox

local due = {}

-- What promotion and burial read and change: not the content, which may be large.
local CHANGED = { 'v', 's', 'at', 'p', 'ua', 'lu', 'tk', 'a', 'ma', 'cr', 'le' }

local TERMINAL = { 'completed', 'failed', 'cancelled' }

-- Promote at most so many items of a key -> how many were looked at, and the score of the last; as many as asked for,
-- there may be more from that score on.
function due.promote(key, most)
  local now, name = clock.now, index.name(key, 'scheduled')
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

-- What a burial takes, in work: an entry is about 3 us, and so is what is read and told of each 4 KiB.
local BURIAL, PART = 10, 4096

-- As the end of any other claim, it fires what stands on the key.
local FIRES = { triggers = 'key' }

-- Keep it as a dead letter; where there is no room for the event it stays as it is, until there is. Returns whether it is
-- buried, and the work that this took.
function due.bury(record)
  item.open(record)
  lock.bury(record)
  local buried = item.close(record)
  if buried and outbox.add(record, 'updated', FIRES) then
    item.undo(record)
    buried = false
  end
  if buried then
    lock.count(record.key, 'expired_locks')
  end
  local bytes = 0
  for _, value in pairs(record.fields) do
    bytes = bytes + #value
  end
  return buried, BURIAL + bytes / PART
end

-- An item whose lock has expired stays as it is, for whoever claims next, unless that would be once too often: then it
-- is buried. Returns the work that this took, and whether it should be buried and could not.
function due.bury_exhausted(key, sort)
  local record = item.peek(key, sort, CHANGED)
  if record.fields.s ~= 'started' or lock.live(record.fields) or not lock.exhausted(record) then
    return 1, false
  end
  if settings.of(key).t then
    item.load(key, sort) -- the event tells all of it
  end
  local buried, work = due.bury(record)
  return work, not buried
end

local function first_score(key, status, above)
  local found = redis.call('ZRANGEBYSCORE', index.name(key, status), above, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(found[2])
end

-- When something of a key becomes due or expires next, after now; or nil.
function due.next_ms(key)
  local now = '(' .. clock.now
  local scheduled, started = first_score(key, 'scheduled', now), first_score(key, 'started', now)
  return scheduled and started and math.min(scheduled, started) or scheduled or started
end

-- Remove an item that is still in this status.
local function remove(key, sort, status)
  local names = { 'v', 's', 'tk' }
  for _, place in ipairs(declared.of(key)) do
    names[#names + 1] = place.field
  end
  local record = item.peek(key, sort, names)
  if record.fields.s ~= status then
    return false
  end
  item.open(record)
  item.clear(record)
  return item.close(record)
end

-- The oldest of a status that need not be kept, at most so many; and when the next one need not.
local function outdated(key, status, most)
  local age, count = settings.kept(key, status)
  local name, found = index.name(key, status), {}
  local excess = count and redis.call('ZCARD', name) - count or 0
  if excess > 0 then
    found = redis.call('ZRANGE', name, 0, math.min(excess, most) - 1)
  end
  if age and #found < most then
    local old = redis.call('ZRANGEBYSCORE', name, '-inf', clock.text(clock.ms - age), 'LIMIT', 0, most)
    found = #old > #found and old or found
  end
  local first = age and redis.call('ZRANGE', name, #found, #found, 'WITHSCORES') or {}
  return found, first[2] and tonumber(first[2]) + age
end

-- Remove at most so many items of a key that need not be kept, as far as the call's time reaches -> how many, and when the
-- next one need not.
function due.purge(key, most)
  local removed, next_ms = 0, nil
  for _, status in ipairs(TERMINAL) do
    local age, count = settings.kept(key, status)
    if (age or count) and removed < most then
      local sorts, at = outdated(key, status, most - removed)
      for _, sort in ipairs(sorts) do
        if removed > 0 and clock.late(16) then
          return removed, clock.ms
        end
        removed = removed + (remove(key, sort, status) and 1 or 0)
      end
      next_ms = at and math.min(at, next_ms or at) or next_ms
    end
  end
  return removed, next_ms
end
