#!lua flags=allow-oom
-- Whose turn is it among the events of one item for one URL? With `ended` that event gives way, if it is the first. Then
-- the place of the event `id` (0 is first, false is none), which one is first, whether that is still in the outbox, and
-- whether `ended` has given way. The list is forgotten where nobody asks for `keep` ms.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: turns

-- How many are looked at, from the end on, for one that is not where it should be.
local UNORDERED = 1000

local function numbers(id)
  local ms, count = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(count)
end

-- By halves, as the ids stand in their order: all that wait ask again and again, and there may be many.
local function place_of(name, id)
  local ms, count = numbers(id)
  local first, last = 0, redis.call('LLEN', name) - 1
  while first <= last do
    local middle = math.floor((first + last) / 2)
    local found = redis.call('LINDEX', name, middle)
    if found == id then
      return middle
    end
    local found_ms, found_count = numbers(found)
    if not found_ms then
      break
    elseif found_ms < ms or (found_ms == ms and found_count < count) then
      first = middle + 1
    else
      last = middle - 1
    end
  end
  -- In no order they are where the outbox was made anew and the clock put back; what came last stands at the end.
  return redis.call('LPOS', name, id, 'RANK', -1, 'MAXLEN', UNORDERED)
end

return function()
  local name = turns.name(request.key, request.sort, request.url)
  local gone = request.ended and redis.call('LINDEX', name, 0) == request.ended
  if gone then
    redis.call('LPOP', name)
  end
  redis.call('PEXPIRE', name, request.keep)
  local ended = gone and request.ended == request.id
  local place, first = not ended and place_of(name, request.id), redis.call('LINDEX', name, 0)
  local fresh = first and #redis.call('XRANGE', partition .. ':outbox', first, first) > 0
  return cmsgpack.pack({ place, first, fresh, gone or false })
end
