#!lua
-- Write items as an archive has them, with versions and times of their own and without events. One that is there stays as it
-- is, unless it is to be replaced and differs.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome clock item lock call

local WAITING = { not_started = true, scheduled = true }

-- What its status asks of an item, whatever the archive says. No token of an archive is valid: a started item keeps worker
-- and lock, but its token is a new one that nobody knows, so it can be claimed once the lock has passed.
local function fit(record, operation)
  local fields = record.fields
  if fields.s == 'started' then
    item.set(record, 'lu', fields.lu or clock.now)
    item.set(record, 'tk', fields.v .. '.' .. lock.mark(operation.nonce))
  elseif WAITING[fields.s] then
    lock.idle(record)
    item.set(record, 'a', fields.a or '0')
    item.set(record, 'at', fields.at or fields.sd or fields.ua)
  else
    lock.leave(record)
  end
end

-- Whether nothing of an item has changed but its version and token.
local function same(record)
  for field, old in pairs(record.delta) do
    if field ~= 'v' and field ~= 'tk' and old ~= (record.fields[field] or false) then
      return false
    end
  end
  return true
end

local function restore(operation)
  local record = item.load(operation.key, operation.sort)
  if record.corrupt and not record.stored then
    return { outcome.corrupt, false, false }
  elseif record.corrupt then
    record.corrupt, record.exists = nil, true -- to write it anew mends it
  end
  if record.exists and not operation.replace then
    return { outcome.exists, false, false }
  end
  local known = tonumber(record.fields.v) or 0
  if record.exists then
    item.open(record)
  else
    item.begin(record)
  end
  for field in pairs(record.fields) do
    item.set(record, field, nil)
  end
  for field, value in pairs(operation.set) do
    item.set(record, field, value)
  end
  local version = tonumber(operation.set.v)
  -- No version may name two states of an item.
  item.set(record, 'v', clock.text(math.max(known + 1, version)))
  fit(record, operation)
  record.place = operation.place
  if known >= version and same(record) then
    item.undo(record)
    return { outcome.exists, false, false }
  elseif not item.close(record) then
    return { outcome.corrupt, false, false }
  elseif not record.was then
    item.grow(record.key, 1)
  end
  return { outcome.ok, false, false }
end

return function()
  return call.run(restore)
end
