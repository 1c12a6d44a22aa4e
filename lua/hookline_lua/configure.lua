#!lua flags=allow-oom
-- Write the settings of a key: `set` and `unset` in the partition that counts their generation, and the whole of what
-- came of it in the others, unless they have it already. A repeat does no harm.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome settings wake

local key = request.key
local name = partition .. ':cfg:' .. key
local current = settings.of(key)
if not current then
  return cmsgpack.pack({ outcome.corrupt, {} })
end

local wanted = {}
for field, value in pairs(request.whole or current) do
  wanted[field] = value
end
if not request.whole then
  for field, value in pairs(request.set) do
    wanted[field] = value
  end
  for _, field in ipairs(request.unset) do
    wanted[field] = nil
  end
end

local function differs(one, other)
  for field, value in pairs(one) do
    if other[field] ~= value then
      return true
    end
  end
  return false
end

if differs(wanted, current) or differs(current, wanted) then
  local generation = tonumber(current.generation) or 0
  if not request.whole then
    wanted.generation = string.format('%.0f', generation + 1)
  end
  if (tonumber(wanted.generation) or 0) > generation then
    local flat = {}
    for field, value in pairs(wanted) do
      flat[#flat + 1] = field
      flat[#flat + 1] = value
    end
    redis.call('DEL', name)
    redis.call('HSET', name, unpack(flat))
    if current.max_attempts ~= wanted.max_attempts then
      -- A lock that has expired may be one to bury now: the sweep must look again.
      redis.pcall('ZADD', partition .. ':due', 'LT', 0, key)
    end
    if current.paused and not wanted.paused then
      wake.say('ready:' .. key)
    end
  end
end
return cmsgpack.pack({ outcome.ok, wanted })
