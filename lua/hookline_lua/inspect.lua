#!lua flags=allow-oom
-- Hold named parts of a partition against each other: keys, items, entries of an index, or of the registry. Whoever looks
-- sees all that belongs together at one moment. With `repair` what does not fit is put right in the same step: the hash
-- of an item is the truth, all else follows it.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock settings value index declared lock wake

local KINDS = { k = 'zset', s = 'zset', x = 'zset', r = 'set', due = 'zset', builds = 'hash', n = 'hash', cfg = 'hash',
  held = 'hash', outbox = 'stream', turns = 'list', ready = 'zset' }
-- What can be made anew from the items.
local DERIVED = { k = true, s = true, x = true, r = true, due = true, builds = true, ready = true }
local PLACES = 1000
local DUE_LATE = 'is noted to become due too late, or not at all'

local INDEX_KINDS = { string = true, number = true, time = true }
local SETTINGS_NUMBERS = { max_attempts = true, lock_ms = true, length_max = true, generation = true }

local inspect = {}
local repair, sizes, findings, unread

-- Note what does not fit, and put it right if there is a way and it was asked for.
local function tell(key, sort, what, mend)
  if repair and mend then
    mend()
  end
  findings[#findings + 1] = { key, sort, what, repair and mend ~= nil }
end

local function described(label)
  if label == '' then
    return 'the set of all sortFields'
  elseif string.byte(label) == 0 then
    return 'the index on ' .. string.sub(label, 2)
  end
  return 'the set of status ' .. label
end

-- A number that can be a score: nan is none.
local function finite(raw)
  local number = tonumber(raw or nil)
  return number and math.abs(number) < math.huge and number or nil
end

-- Tell of settings that cannot be read, which all else passes over; `unread` has the labels of indexes among them.
local function check_settings(key)
  if unread[key] then
    return
  end
  unread[key] = {}
  local known = settings.of(key)
  for field, raw in pairs(known or {}) do
    local sound = true
    if string.sub(field, 1, 2) == 'x:' then
      local unpacked, place = pcall(cmsgpack.unpack, raw)
      sound = unpacked and type(place) == 'table' and INDEX_KINDS[place.kind] and type(place.field) == 'string'
      unread[key]['\0' .. string.sub(field, 3)] = not sound
    elseif string.sub(field, 1, 5) == 'keep:' then
      sound = string.match(raw, '^%d* %d*$')
    elseif SETTINGS_NUMBERS[field] then
      sound = finite(raw)
    end
    if not sound then
      known[field] = nil
      tell(key, '', 'has a setting that cannot be read: ' .. field)
    end
  end
end

local function place_of(key, label)
  for _, place in ipairs(declared.of(key)) do
    if place.label == label then
      return place
    end
  end
  return nil
end

local function undeclared(key, label)
  return settings.of(key) and not place_of(key, label) and not unread[key][label]
end

local function check_due(key, latest)
  local name = partition .. ':due'
  local due = redis.pcall('ZSCORE', name, key)
  if type(due) == 'table' or (due and tonumber(due) <= latest) then
    return
  end
  tell(key, '', DUE_LATE, function()
    redis.call('ZADD', name, 'LT', 0, key)
  end)
end

-- Keys

local function check_listed(key, label)
  local registry, entry = index.registry(key), key .. '\0' .. label
  if index.probe('SCARD', registry) and redis.call('SISMEMBER', registry, entry) == 0 then
    tell(key, '', described(label) .. ' is not in the registry', function()
      redis.call('SADD', registry, entry)
    end)
  end
end

local function check_set(key, label)
  if string.byte(label) ~= 0 then
    check_listed(key, label)
    local _, most = settings.kept(key, label)
    if most and index.set(key, label).size > most then
      check_due(key, clock.ms)
    end
  elseif undeclared(key, label) then
    tell(key, '', described(label) .. ' was declared by nobody', function()
      redis.call('UNLINK', index.name(key, label))
    end)
  end
end

local function check_bell(key, name)
  local entries, empty = redis.call('ZRANGE', name, 0, 1, 'WITHSCORES'), true
  for _, label in ipairs({ '', 'not_started', 'scheduled' }) do
    empty = empty and index.set(key, label).size == 0
  end
  if empty or #entries ~= 2 or entries[1] ~= '' or entries[2] ~= '0' then
    tell(key, '', empty and 'its bell rings, and it has no items' or 'its bell has a wrong entry', function()
      redis.call('UNLINK', name)
    end)
  end
end

-- Remove what has the name of an index. A declared one is built anew by the servers; the others by the rest of this repair.
local function unlink(name, key, label)
  return function()
    redis.call('UNLINK', name)
    if label and string.byte(label) == 0 and place_of(key, label) then
      redis.call('HSET', partition .. ':builds', key .. '\0' .. string.sub(label, 2), '')
    end
  end
end

function inspect.keys(short)
  local family, key, rest = string.match(short, '^([^:]*):?([^:]*):?(.*)$')
  local name, label = partition .. ':' .. short, nil
  if family == 'k' or family == 's' or family == 'x' then
    label = family == 'x' and '\0' .. rest or rest
  end
  local kind = redis.call('TYPE', name).ok
  check_settings(key)
  if kind == 'none' then
    return 1
  elseif not KINDS[family] then
    tell(key, '', short .. ' is of no family that is known here')
  elseif kind ~= KINDS[family] then
    tell(label and key or '', '', short .. ' has a wrong type: ' .. kind, DERIVED[family] and unlink(name, key, label) or nil)
  elseif family == 'ready' then
    check_bell(key, name)
  elseif label then
    check_set(key, label)
    sizes = sizes + redis.call('ZCARD', name) * (family == 'k' and 2 or 1)
  end
  return 5
end

-- Entries of a registry, and of the list of indexes that are not complete

function inspect.registry(entry)
  local name = partition .. ':' .. request.set
  if redis.call('SISMEMBER', name, entry) == 0 then
    return 1
  end
  local key, label = string.match(entry, '^(%Z*)%z(.*)$')
  local what = nil
  if not key then
    what = 'the registry has an entry that names nothing'
  elseif index.registry(key) ~= name then
    what = described(label) .. ' is in the registry of other keys'
  elseif index.set(key, label).size == 0 then
    what = described(label) .. ' is in the registry, and empty'
  end
  if what then
    tell(key or '', '', what, function()
      redis.call('SREM', name, entry)
    end)
  end
  return 2
end

function inspect.builds(entry)
  local key, name = string.match(entry, '^(%Z*)%z(.*)$')
  if key then
    check_settings(key)
  end
  if not key or undeclared(key, '\0' .. name) then
    tell(key or '', '', described('\0' .. (name or '')) .. ' is to be built, and was declared by nobody', function()
      redis.call('HDEL', partition .. ':builds', entry)
    end)
  end
  return 2
end

-- Entries of an index: whether each names an item that belongs there

-- The entry that an item should have in a declared index; `readable` is false where its value is none.
local function entry_of(place, raw, sort)
  if raw and not place.native and not pcall(cmsgpack.unpack, raw) then
    return false
  end
  local readable, score, member = pcall(declared.entry, place, raw, sort)
  return readable and score == score, score, member -- nan is no score
end

local function misplaced(key, label, member, raw)
  if label == '' then
    return nil
  elseif string.byte(label) ~= 0 then
    return raw ~= label and ', and has another status' or nil
  end
  local place = place_of(key, label)
  local readable, _, right = entry_of(place, raw, declared.sort_of(member))
  return readable and right ~= member and ' by a value that it does not have' or nil
end

function inspect.entries(member)
  local key, label = request.key, request.label
  check_settings(key)
  local place = string.byte(label) == 0 and place_of(key, label)
  if not index.set(key, label).size or (string.byte(label) == 0 and not place) then
    return 1
  elseif not redis.call('ZSCORE', index.name(key, label), member) then
    return 1
  end
  local sort = place and declared.sort_of(member) or member
  local id = partition .. ':i:' .. key .. ':' .. sort
  local raws = redis.pcall('HMGET', id, 'v', place and place.field or 's')
  local flaw = nil
  if raws.err or (not raws[1] and redis.call('EXISTS', id) == 1) then
    return 2 -- told of with the items
  elseif not raws[1] then
    flaw = ', and is not there'
  else
    flaw = misplaced(key, label, member, raws[2])
  end
  if flaw then
    tell(key, sort, 'is in ' .. described(label) .. flaw, function()
      index.remove(key, label, member)
    end)
  end
  return 2 + (place and raws[2] and value.cost(raws[2]) or 0)
end

-- Items: whether each is in every set in which it belongs

local OWN = { 'v', 'ca', 'ua', 's', 'at', 'lu', 'p', 'a', 'ma' }
local NUMBERS = { 'v', 'ca', 'ua' }
local OPTIONAL = { 'at', 'lu', 'p', 'a', 'ma' }

local function read(key, id)
  local names = { unpack(OWN) }
  for _, place in ipairs(declared.of(key)) do
    names[#names + 1] = place.field
  end
  local raws, fields = redis.pcall('HMGET', id, unpack(names)), {}
  if raws.err then
    return nil
  end
  for i, name in ipairs(names) do
    fields[name] = raws[i] or nil
  end
  return fields
end

-- The first field without which the hash can't be an item, or nil.
local function unfit(id, fields)
  for _, field in ipairs(NUMBERS) do
    if not finite(fields[field]) then
      return field
    end
  end
  for _, field in ipairs(OPTIONAL) do
    if fields[field] and not finite(fields[field]) then
      return field
    end
  end
  if fields.s == 'scheduled' and not fields.at then
    return 'at'
  end
  return redis.call('HEXISTS', id, 'c') == 0 and 'c' or nil
end

-- Whether an item stands in a set with a score from `least` up to, but without, `most`; or with just `least`.
local function check_score(key, label, sort, member, least, most)
  if not index.set(key, label).size then
    return
  end
  local score = tonumber(redis.call('ZSCORE', index.name(key, label), member) or nil)
  if score and (score == least or (most and score >= least and score < most)) then
    return
  elseif not score and string.byte(label) == 0 and not declared.complete(key, label) then
    return
  end
  tell(key, sort, (score and 'is out of place in ' or 'is not in ') .. described(label), function()
    index.add(key, label, least, member)
  end)
end

-- Until when the sweep must look at the key for this item's sake; nil where it need not.
local function due_by(key, fields)
  local ends = tonumber(fields.lu or 0)
  if not settings.of(key) then
    return nil
  elseif fields.s == 'scheduled' then
    return math.max(clock.ms, tonumber(fields.at))
  elseif fields.s == 'started' then
    return (ends > clock.ms or lock.exhausted({ key = key, fields = fields })) and ends or nil
  end
  local age = fields.s and settings.kept(key, fields.s)
  return age and math.max(clock.ms, tonumber(fields.ua) + age)
end

local function check_declared(key, sort, fields)
  local cost = 0
  for _, place in ipairs(declared.of(key)) do
    local raw = fields[place.field]
    local readable, score, member = entry_of(place, raw, sort)
    if not readable then
      tell(key, sort, 'has a field that is no value, at ' .. string.sub(place.label, 2))
    elseif member then
      check_score(key, place.label, sort, member, score)
    end
    cost = cost + 1 + (raw and value.cost(raw) or 0)
  end
  return cost
end

function inspect.items(name)
  local key, sort = string.match(name, '^([^:]+):(.+)$')
  local id = partition .. ':i:' .. name
  if not key then
    tell('', '', 'i:' .. name .. ' names no item')
    return 1
  end
  check_settings(key)
  local fields = read(key, id)
  if not fields then
    tell(key, sort, 'is no hash, so it can be no item')
    return 2
  elseif not next(fields) and redis.call('EXISTS', id) == 0 then
    return 2
  end
  local lacks = unfit(id, fields)
  if lacks then
    tell(key, sort, 'can be no item: its field ' .. lacks .. ' is missing, or no number')
    return 2
  end
  check_score(key, '', sort, sort, 0)
  local status = fields.s
  if status and (status == '' or string.byte(status) == 0) then
    tell(key, sort, 'has a status that can be none')
    fields.s = nil
  elseif status then
    local least = index.score(fields)
    check_score(key, status, sort, sort, least, status == 'not_started' and least + PLACES)
  end
  local latest = due_by(key, fields)
  if latest then
    check_due(key, latest)
  end
  return 4 + check_declared(key, sort, fields)
end

return function()
  repair, sizes, findings, unread = request.repair, 0, {}, {}
  local work, done = request.work, 0
  for _, name in ipairs(request.names) do
    if work <= 0 or clock.late() then
      break
    end
    work = work - inspect[request.verb](name)
    done = done + 1
  end
  index.flush()
  wake.flush(index.ready)
  return cmsgpack.pack({ done, sizes, findings })
end
