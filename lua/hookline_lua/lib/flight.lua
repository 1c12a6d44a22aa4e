-- Claims of one worker that may hold only so many items of a key at once: which it holds, and by which tokens.
-- use: clock item lock

local flight = { held = {} }

-- Renewed by each claim that looks at it; so long after the last one nobody holds anything any more.
local KEPT_MS = 2592000000

local function name_of(operation)
  return partition .. ':held:' .. operation.key .. ':' .. operation.worker
end

-- A slot is free again once the claim that took it has ended: another token, another status, or the lock has expired.
local function holds(key, sort, token)
  local known = item.view[key .. ':' .. sort]
  local fields = known and not known.partial and known.fields
  if not fields then
    local raws = redis.pcall('HMGET', item.prefix .. key .. ':' .. sort, 's', 'lu', 'tk')
    fields = { s = raws[1], lu = raws[2], tk = raws[3] }
  end
  return fields.tk == token and lock.live(fields)
end

-- How many more items an operation may take; nil where the note of them is of a wrong type.
function flight.free(operation)
  local name = name_of(operation)
  if not flight.held[name] then
    local flat, count, ended = redis.pcall('HGETALL', name), 0, {}
    if flat.err then
      return nil
    end
    for i = 1, #flat, 2 do
      if holds(operation.key, flat[i], flat[i + 1]) then
        count = count + 1
      else
        ended[#ended + 1] = flat[i]
      end
    end
    if #ended > 0 then
      redis.call('HDEL', name, unpack(ended))
    end
    if count > 0 then
      redis.call('PEXPIRE', name, KEPT_MS)
    end
    flight.held[name] = count
  end
  return math.max(0, operation.in_flight - flight.held[name])
end

-- Note an item that the operation took. At once: what was not given after all is told by its token.
function flight.take(operation, record)
  local name = name_of(operation)
  redis.call('HSET', name, record.sort, record.fields.tk)
  redis.call('PEXPIRE', name, KEPT_MS)
  flight.held[name] = flight.held[name] + 1
end
