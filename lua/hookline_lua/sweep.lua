#!lua flags=allow-oom
-- Promote what is due, bury what has expired once too often and remove what need not be kept, of the keys whose time has
-- come.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock settings index declared item lock outbox due wake

local KEYS_MAX, CORRUPT_FOR_MS = 100, 60000

-- What each takes, in work: an entry is about 3 us. To sweep a key is some 25 commands.
local KEY, PROMOTION, REMOVAL = 25, 10, 10

local name, work, passed, answer

local function spend(cost)
  work = clock.late(cost) and 0 or work - cost
end

local function bury_exhausted(key, sort)
  local refusal, taken = due.bury_exhausted(key, sort)
  spend(taken)
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
  spend(promoted * PROMOTION)
  return promoted == most and tonumber(last) or due.next_ms(key)
end

-- The same of what is to be removed.
local function purge(key)
  local most = room(REMOVAL)
  local removed, next_ms = due.purge(key, most)
  spend(removed * REMOVAL)
  return removed == most and clock.ms or next_ms
end

-- A key of which more is due than the work suffices for.
local function go_on(key)
  answer.more = true
  table.insert(answer.passed, key)
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
    go_on(key)
    return redis.call('ZADD', name, place[1], key)
  end
  local next_ms = clock.earlier(promote(key), purge(key))
  if next_ms and next_ms <= clock.ms then
    go_on(key)
  end
  return next_ms and redis.call('ZADD', name, next_ms, key) or redis.call('ZREM', name, key)
end

-- Sweep a key as long as there is work left; else its turn comes with the next call.
local function take(key, from)
  if work > 0 then
    sweep(key, from)
    return spend(KEY)
  end
  answer.more = true
  answer.places[key] = request.places[key]
  if passed[key] then
    table.insert(answer.passed, key)
  end
end

-- Those first that are due first; but a key that took up the work of a call lets all others come before it is swept again.
local function take_all(keys)
  local others = {}
  for i = 1, #keys, 2 do
    if passed[keys[i]] then
      table.insert(others, i)
    else
      take(keys[i], keys[i + 1])
    end
  end
  if work > 0 then
    passed = {}
  end
  for _, i in ipairs(others) do
    take(keys[i], keys[i + 1])
  end
end

return function()
  name, work, passed, outbox.events_max = partition .. ':due', request.work, {}, request.outbox_max
  answer = { more = false, corrupt = {}, places = {}, passed = {}, put_off = 0 }
  answer.builds = index.probe('HLEN', partition .. ':builds') or 0
  for _, key in ipairs(request.passed) do
    passed[key] = true
  end
  local keys = redis.pcall('ZRANGEBYSCORE', name, '-inf', clock.text(clock.ms), 'WITHSCORES', 'LIMIT', 0, KEYS_MAX)
  if keys.err then
    return cmsgpack.pack({ unreadable = true })
  end
  answer.more = #keys == 2 * KEYS_MAX
  spend(0) -- the time counts from here
  take_all(keys)
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
