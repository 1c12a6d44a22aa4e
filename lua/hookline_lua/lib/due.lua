-- What becomes due, by time alone: scheduled items join the line, exhausted locks are buried, what need not be kept is
-- removed. Only a burial is an event.
-- use: outcome clock settings index declared item lock triggers outbox

local due = {}

-- What promotion and burial read and change: not the content, which may be large.
local CHANGED = { 'v', 's', 'at', 'p', 'ua', 'lu', 'tk', 'a', 'ma', 'cr', 'le' }

local TERMINAL = { 'completed', 'failed', 'cancelled' }

-- Promote at most so many items of a key -> how many were looked at, and the score of the last; as many as asked for,
-- there may be more from that score on.
function due.promote(key, most)
  if index.empty(key, 'scheduled') then
    return 0
  end
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

-- As the end of any other claim, a burial fires what stands on the key.
local EVENT, STATUS, FIRES = 'updated', 'status:failed', { triggers = 'key' }

-- What a burial takes, in work: an entry is about 3 us, and so is each KiB that is told.
local BURIAL, FIRING, PART = 10, 30, 1024

-- For so long a burial is put off that finds no room for its event.
local PUT_OFF_MS = 60000

function due.reset()
  due.heard = {}
end

-- Whether a trigger of the key listens to burials.
local function is_heard(key)
  if due.heard[key] == nil then
    due.heard[key] = triggers.listen(settings.of(key).t, EVENT, STATUS)
  end
  return due.heard[key]
end

-- Its lock goes on for a while, so that nobody looks at it again and again meanwhile; under a token that nobody was given, as
-- its worker's slot is free.
local function put_off(record)
  local nonce = string.sub(redis.sha1hex(record.fields.tk or ''), 1, 16)
  item.open(record)
  item.set(record, 'tk', record.fields.v .. '.' .. lock.mark(nonce))
  item.set(record, 'lu', clock.text(clock.ms + PUT_OFF_MS))
  item.close(record)
end

local function size_of(record)
  local bytes = 0
  for _, value in pairs(record.fields) do
    bytes = bytes + #value
  end
  return bytes
end

-- Keep it as a dead letter, and tell of it; or put that off -> the refusal for which, or nil; the work that it took, and the
-- bytes that were told.
function due.bury(record)
  local heard = is_heard(record.key)
  local refusal = heard and outbox.refusal()
  if refusal then
    put_off(record)
    return refusal, BURIAL, 0
  elseif heard and record.partial then
    item.load(record.key, record.sort) -- the event tells all of it
  end
  item.open(record)
  lock.bury(record)
  if not item.close(record) then
    return outcome.corrupt, BURIAL, 0
  end
  refusal = heard and outbox.add(record, EVENT, FIRES)
  if refusal then
    item.undo(record)
    put_off(record)
    return refusal, FIRING, 0
  end
  lock.count(record.key, 'expired_locks')
  local bytes = heard and size_of(record) or 0
  return nil, heard and FIRING + bytes / PART or BURIAL, bytes
end

-- An item whose lock has expired stays as it is, for whoever claims next, unless that would be once too often: then it
-- is buried. Returns as that; what is not buried takes one of work.
function due.bury_exhausted(key, sort)
  local record = item.peek(key, sort, CHANGED)
  if not record.exists or record.fields.s ~= 'started' or lock.live(record.fields) or not lock.exhausted(record) then
    return nil, 1, 0
  end
  return due.bury(record)
end

local function first_score(key, status, above)
  if index.empty(key, status) then
    return nil
  end
  local found = redis.call('ZRANGEBYSCORE', index.name(key, status), above, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(found[2])
end

-- When something of a key becomes due or expires next, after now; or nil.
function due.next_ms(key)
  local now = '(' .. clock.now
  return clock.earlier(first_score(key, 'scheduled', now), first_score(key, 'started', now))
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
      next_ms = clock.earlier(at, next_ms)
    end
  end
  return removed, next_ms
end
