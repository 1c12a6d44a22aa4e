#!lua flags=allow-oom
-- Write the settings of a key: `set` and `unset` (names, or beginnings of names followed by `*`) in the partition that
-- counts their generation, and the whole of what came of it in the others, unless they have that or a later one. With
-- `ahead`, the newest that other partitions have, the change is made on top of that if it is not known here: then it is
-- the first generation of a new term. Answers with what holds then. A repeat does no harm.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome settings index triggers wake

local TERM = 1000000

local key, name, builds, current

local function generation_of(fields)
  local text = fields.generation or ''
  return #text < 16 and string.find(text, '^%d+$') and tonumber(text) or 0
end

local function unset(wanted, base, field)
  if string.sub(field, -1) ~= '*' then
    wanted[field] = nil
    return
  end
  local start = string.sub(field, 1, -2)
  for each in pairs(base) do
    if string.sub(each, 1, #start) == start then
      wanted[each] = nil
    end
  end
end

local function merge(base)
  if request.whole then
    return request.whole
  end
  local wanted = {}
  for field, value in pairs(base) do
    wanted[field] = value
  end
  for _, field in ipairs(request.unset) do
    unset(wanted, base, field)
  end
  for field, value in pairs(request.set) do
    if field == 't' then
      value = triggers.merge(value, wanted.t)
    end
    wanted[field] = value
  end
  return wanted
end

-- Call `act` with each field that `one` has otherwise than `other`. Returns whether there was one.
local function each_change(one, other, act)
  local found = false
  for field, value in pairs(one) do
    if other[field] ~= value then
      found = true
      act(field)
    end
  end
  return found
end

local function indexed(field)
  return string.sub(field, 1, 2) == 'x:' and string.sub(field, 3)
end

-- An index that is gone, or of another kind now, loses its set.
local function drop(field)
  local index_name = indexed(field)
  if index_name then
    redis.call('UNLINK', index.name(key, '\0' .. index_name))
    redis.call('HDEL', builds, key .. '\0' .. index_name)
  end
end

-- A new one is built by and by.
local function begin(field)
  local index_name = indexed(field)
  if index_name and redis.call('ZCARD', index.name(key, '')) > 0 then
    redis.call('HSET', builds, key .. '\0' .. index_name, '')
  end
end

-- With other limits a lock that has expired may be one to bury now, and an item one to remove: the sweep must look again.
local function look_again(field)
  if field == 'max_attempts' or string.sub(field, 1, 5) == 'keep:' then
    redis.pcall('ZADD', partition .. ':due', 'LT', 0, key)
  end
end

local function write(wanted)
  local flat = {}
  for field, value in pairs(wanted) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  redis.call('DEL', name)
  redis.call('HSET', name, unpack(flat))
  for _, act in ipairs({ drop, look_again }) do
    each_change(current, wanted, act)
  end
  for _, act in ipairs({ begin, look_again }) do
    each_change(wanted, current, act)
  end
  if current.paused and not wanted.paused then
    wake.say('ready:' .. key)
    if (index.set(key, '').size or 0) > 0 then
      wake.ring(key) -- also for what is due, or was left by a lock that has expired
    end
  end
end

local function ignore() end

local function differ(one, other)
  return each_change(one, other, ignore) or each_change(other, one, ignore)
end

-- Whether what another partition has is not known here.
local function is_lost(ahead, generation)
  local theirs = generation_of(ahead)
  return theirs > generation or (theirs == generation and differ(ahead, current))
end

return function()
  key, name, builds = request.key, partition .. ':cfg:' .. request.key, partition .. ':builds'
  current = settings.of(key)
  if not (current and index.probe('HLEN', builds) and index.probe('ZCARD', index.name(key, ''))) then
    return cmsgpack.pack({ outcome.corrupt, {} })
  end
  local generation, ahead = generation_of(current), request.ahead
  local base = ahead and is_lost(ahead, generation) and ahead or current
  local wanted = merge(base)
  if differ(wanted, current) then
    if base ~= current then
      wanted.generation = string.format('%.0f', (math.floor(generation_of(base) / TERM) + 1) * TERM)
    elseif not request.whole then
      wanted.generation = string.format('%.0f', generation + 1)
    end
    if generation_of(wanted) <= generation then
      return cmsgpack.pack({ outcome.ok, current })
    end
    write(wanted)
  end
  return cmsgpack.pack({ outcome.ok, wanted })
end
