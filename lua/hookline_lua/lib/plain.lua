-- Creates as most of them are, the short way: a new item that waits in line or has no status, without triggers, of a key
-- without triggers, indexes or bounds. What they do is what change.create does; it is written at once, and only the moves
-- of the indexes wait for the end of the call.
-- use: outcome clock settings index declared item call

local plain = { keys = {}, shown = {} }

-- Fields that need more than to be written.
local OTHER_WAYS = { t = true, w = true, lu = true, sa = true, da = true, sd = true }

-- Whether a key asks for nothing beyond that; once a call.
local function is_plain(key)
  local known = plain.keys[key]
  if known == nil then
    local own = settings.of(key)
    known = not (own.t or own.length_max)
      and #declared.of(key) == 0
      and index.sound(key, nil, 'not_started')
      and true
      or false
    plain.keys[key] = known
  end
  return known
end

-- The fields of the new item, one after the other; nil where they need more.
local function fields_of(set)
  local status, flat, n = set.s, { 'v', '1', 'ca', clock.now, 'ua', clock.now }, 6
  if status and status ~= 'not_started' then
    return nil
  end
  for field, value in pairs(set) do
    if OTHER_WAYS[field] then
      return nil
    end
    flat[n + 1], flat[n + 2] = field, value
    n = n + 2
  end
  if not set.c then
    flat[n + 1], flat[n + 2] = 'c', '\192'
    n = n + 2
  end
  if status then
    flat[n + 1], flat[n + 2] = 'at', clock.now
    if not set.a then
      flat[n + 3], flat[n + 4] = 'a', '0'
    end
  end
  return flat
end

-- What the caller does not know of the item; most know as much, and share a table.
local function show(set)
  local kind = (set.s and 1 or 0) + (set.c and 2 or 0) + (set.a and 4 or 0)
  local shown = plain.shown[kind]
  if not shown then
    shown = { v = '1', ca = clock.now, ua = clock.now }
    shown.c = not set.c and '\192' or nil
    shown.at = set.s and clock.now or nil
    shown.a = set.s and not set.a and '0' or nil
    plain.shown[kind] = shown
  end
  return shown
end

-- The outcome of a create; nil where it takes the long way.
function plain.create(operation, place)
  local key, sort, set = operation.key, operation.sort, operation.set
  local name = key .. ':' .. sort
  if operation.upsert or operation.match or operation.expect or operation.now or item.view[name] or not is_plain(key) then
    return nil
  end
  local id = item.prefix .. name
  local flat = fields_of(set)
  if not flat or redis.call('EXISTS', id) == 1 then
    return nil
  end
  redis.call('HSET', id, unpack(flat))
  index.add(key, '', 0, sort)
  if set.s then
    index.add(key, 'not_started', index.score({ s = set.s, p = set.p, at = clock.now }, clock.micros + place), sort)
  end
  item.written(key, name, id)
  local shown = show(set)
  call.states[place] = shown
  return { outcome.ok, shown, false }
end
