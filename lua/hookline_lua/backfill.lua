#!lua
-- Go on building declared indexes of a partition that are not complete yet: those of one key, or some of any key, each from
-- the item where the last call ended, looking at so many, or fewer where it costs more to read them. With no work it just
-- tells how much is left, at the memory limit too.
-- drain: yes
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock settings index value declared

-- An index costs as much as so many items, whatever is left of it.
local PAGE, INDEX = 100, 10

local builds, left

local function spend(cost)
  left = clock.late(cost) and 0 or left - cost
end

local function lex_count(name, after)
  return redis.call('ZLEXCOUNT', name, after == '' and '-' or '(' .. after, '+')
end

local function place_of(key, name)
  for _, place in ipairs(declared.of(key)) do
    if place.label == '\0' .. name then
      return place
    end
  end
  return nil
end

-- Add a page of items behind a place to an index, as far as the work reaches. Returns where it ends; nil where nothing is
-- left.
local function add(key, place, after)
  local name = index.name(key, '')
  local sorts = redis.call('ZRANGE', name, after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, PAGE)
  local entries, done = {}, 0
  while done < #sorts and left > 0 do
    done = done + 1
    local sort = sorts[done]
    local raw = redis.pcall('HGET', partition .. ':i:' .. key .. ':' .. sort, place.field)
    raw = type(raw) == 'string' and raw
    local score, member = declared.entry(place, raw, sort)
    if member then
      entries[#entries + 1] = score
      entries[#entries + 1] = member
    end
    spend(math.max(1, raw and value.cost(raw) or 0))
  end
  index.write('ZADD', index.name(key, place.label), entries)
  return (done < #sorts or done == PAGE) and sorts[done] or nil
end

-- Returns how many items are still to be looked at; false where something has a wrong type.
local function build(key, name, after)
  local place = place_of(key, name)
  if not (place and index.probe('ZCARD', index.name(key, '')) and declared.sound(key)) then
    return false
  end
  while after and left > 0 do
    after = add(key, place, after)
  end
  local field = key .. '\0' .. name
  local rest = after and lex_count(index.name(key, ''), after) or 0
  if request.work > 0 then
    if rest > 0 then
      redis.call('HSET', builds, field, after)
    else
      redis.call('HDEL', builds, field)
    end
  end
  return rest
end

-- Whether an entry names no index that settings declare: nothing will ever build it.
local function is_idle(key, name)
  local known = key and settings.of(key)
  return not key or (known and not known['x:' .. name])
end

-- All of a key that are not complete, each before its place; or as many as the work may suffice for, at random: so those
-- that cannot be built hold up no others. Nil where something has a wrong type.
local function unfinished()
  if not request.key then
    local flat = redis.pcall('HRANDFIELD', builds, math.ceil(left / INDEX), 'WITHVALUES')
    return not flat.err and flat or nil
  elseif not (settings.of(request.key) and index.probe('HLEN', builds)) then
    return nil
  end
  local flat = {}
  for _, place in ipairs(declared.of(request.key)) do
    local after = redis.call('HGET', builds, request.key .. place.label)
    if after then
      flat[#flat + 1] = request.key .. place.label
      flat[#flat + 1] = after
    end
  end
  return flat
end

return function()
  builds, left = partition .. ':builds', request.work
  local flat = unfinished()
  if not flat then
    return cmsgpack.pack({ outcome.corrupt, {}, 0 })
  end
  local found = {}
  spend(0) -- the time counts from here
  for i = 1, #flat, 2 do
    if not request.key and left <= 0 then
      break
    end
    local key, name = string.match(flat[i], '^(%Z*)%z(.*)$')
    if is_idle(key, name) then
      redis.call('HDEL', builds, flat[i])
      table.insert(found, { name or flat[i], 0 })
    else
      table.insert(found, { name, build(key, name, flat[i + 1]) })
    end
    spend(INDEX)
  end
  local size = request.key and index.probe('ZCARD', index.name(request.key, ''))
  return cmsgpack.pack({ outcome.ok, found, size or 0 })
end
