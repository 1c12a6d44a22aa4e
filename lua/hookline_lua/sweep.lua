#!lua flags=allow-oom
-- Promote what is due, bury what has expired once too often and remove what need not be kept, of the keys whose time has
-- come.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock settings index declared item lock outbox due wake

local KEYS_MAX, PROMOTION, REMOVAL, CORRUPT_FOR_MS = 100, 10, 10, 60000

local name, work, answer

local function bury_exhausted(key, sort)
  local refusal, taken, bytes = due.bury_exhausted(key, sort)
  work = work - taken
  if bytes > 0 and clock.late(16) then
    work = 0 -- it takes longer than that says
  end
  if refusal == outcome.corrupt then
    answer.corrupt[#answer.corrupt + 1] = key
  elseif refusal then
    answer.put_off = answer.put_off + 1
  end
end

-- From the score on, or from the place where the caller's last sweep ended. Returns the place where this one ends
-- early, or nil.
local function bury(key, from)
  local started, place = index.name(key, 'started'), request.places[key]
  local rank
  if place and place[1] == from then
    rank = index.rank(started, place[1], place[2])
  else
    rank, place = redis.call('ZCOUNT', started, '-inf', '(' .. from), { from, '' }
  end
  while true do
    local page = redis.call('ZRANGE', started, rank, rank + 99, 'WITHSCORES')
    for i = 1, #page, 2 do
      if tonumber(page[i + 1]) > clock.ms then
        return nil
      elseif work <= 0 then
        return place
      end
      bury_exhausted(key, page[i])
      place = { page[i + 1], page[i] }
    end
    if #page < 200 then
      return nil
    end
    rank = rank + 100
  end
end

local function sound(key)
  return settings.of(key)
    and index.sound(key, 'scheduled', 'not_started')
    and index.sound(key, 'started', 'failed')
    and index.sound(key, 'completed', 'cancelled')
    and declared.sound(key)
end

-- How many items the rest of the work suffices for.
local function room(cost)
  return math.max(1, math.floor(work / cost))
end

-- Returns when something becomes due next; or nil.
local function promote(key)
  local most = room(PROMOTION)
  local promoted, last = due.promote(key, most)
  work = work - promoted * PROMOTION
  return promoted == most and tonumber(last) or due.next_ms(key)
end

-- The same of what is to be removed.
local function purge(key)
  local most = room(REMOVAL)
  local removed, next_ms = due.purge(key, most)
  work = work - removed * REMOVAL
  return removed == most and clock.ms or next_ms
end

local function first_of(one, other)
  return one and other and math.min(one, other) or one or other
end

-- `from` is the time up to which the key has been swept before.
local function sweep(key, from)
  if not sound(key) then
    table.insert(answer.corrupt, key)
    return redis.call('ZADD', name, clock.ms + CORRUPT_FOR_MS, key)
  end
  local place = bury(key, from)
  if place then
    answer.places[key] = place
    return redis.call('ZADD', name, place[1], key)
  end
  local next_ms = first_of(promote(key), purge(key))
  answer.more = answer.more or (next_ms and next_ms <= clock.ms) or false
  return next_ms and redis.call('ZADD', name, next_ms, key) or redis.call('ZREM', name, key)
end

return function()
  name, work, outbox.events_max = partition .. ':due', request.work, request.outbox_max
  answer = { more = false, corrupt = {}, places = {}, put_off = 0, builds = index.probe('HLEN', partition .. ':builds') or 0 }
  local keys = redis.pcall('ZRANGEBYSCORE', name, '-inf', clock.text(clock.ms), 'WITHSCORES', 'LIMIT', 0, KEYS_MAX)
  if keys.err then
    return cmsgpack.pack({ unreadable = true })
  end
  answer.more = #keys == 2 * KEYS_MAX
  for i = 1, #keys, 2 do
    if work > 0 then
      sweep(keys[i], keys[i + 1])
      work = work - 1
    end
    answer.more = answer.more or work <= 0
  end
  item.flush()
  local fired = outbox.flush()
  lock.flush()
  wake.flush(index.ready)
  wake.changed(item.changed)
  if fired then
    wake.say('outbox')
  end
  return cmsgpack.pack(answer)
end
