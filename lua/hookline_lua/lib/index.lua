-- The sorted sets that follow the items: one per status of a key, and one of all its sortFields (status '').
-- use: clock text

local index = { sets = {}, listed = {}, ready = {}, epoch_ms = 1704067200000 }

-- Whether a key is of the type we write there (or absent); its size, or nil where it is of another type.
function index.probe(command, name)
  local size = redis.pcall(command, name)
  return type(size) == 'number' and size or nil
end

function index.name(key, status)
  return status == '' and partition .. ':k:' .. key or partition .. ':s:' .. key .. ':' .. status
end

-- A set with the moves that wait for it, probed once a call; `size` is nil where something else has its name.
function index.set(key, status)
  local sets = index.sets[key]
  if not sets then
    sets = {}
    index.sets[key] = sets
  end
  local set = sets[status]
  if not set then
    local name = index.name(key, status)
    set = { name = name, size = index.probe('ZCARD', name) }
    sets[status] = set
  end
  return set
end

-- Whether all sets that hold, or will hold, an item can be written.
function index.sound(key, before, after)
  local registry = index.registry(key)
  if index.listed[registry] == nil then
    index.listed[registry] = index.probe('SCARD', registry) and true or false
  end
  return index.listed[registry]
    and index.set(key, '').size
    and (not before or index.set(key, before).size)
    and (not after or index.set(key, after).size)
end

-- Where an item stands in the set of its status. `place` orders what became ready in the same millisecond.
function index.score(fields, place)
  local status = fields.s
  if status == 'not_started' then
    local since = math.max(0, tonumber(fields.at or fields.ua) - index.epoch_ms)
    return (9 - tonumber(fields.p or 5)) * 9e14 + since * 1000 + math.min(999, place or 0)
  elseif status == 'scheduled' then
    return tonumber(fields.at)
  elseif status == 'started' then
    return tonumber(fields.lu or 0)
  end
  return tonumber(fields.ua)
end

-- The moves of one kind that wait for a set: `added` score by member, or `removed`.
local function moves(key, status, kind)
  local set = index.set(key, status)
  local list = set[kind]
  if not list then
    list = {}
    set[kind] = list
  end
  return list
end

function index.add(key, status, score, sort)
  local added = moves(key, status, 'added')
  added[#added + 1] = score
  added[#added + 1] = sort
end

function index.remove(key, status, sort)
  local removed = moves(key, status, 'removed')
  removed[#removed + 1] = sort
end

-- Lua passes at most 8,000 values at once, and a batch may bring more. The sum of what the store answers.
function index.write(command, name, values)
  local sum = 0
  for first = 1, #values, 4000 do
    sum = sum + redis.call(command, name, unpack(values, first, math.min(first + 3999, #values)))
  end
  return sum
end

-- The rank of the first entry behind a place, whether or not anything still stands there.
function index.rank_after(name, score, member, descending)
  local first = redis.call('ZCOUNT', name, '-inf', '(' .. score)
  local last = redis.call('ZCOUNT', name, '-inf', score)
  while first < last do
    local middle = math.floor((first + last) / 2)
    local order = text.compare(redis.call('ZRANGE', name, middle, middle)[1], member)
    if order < 0 or (order == 0 and not descending) then
      first = middle + 1
    else
      last = middle
    end
  end
  return descending and redis.call('ZCARD', name) - first or first
end

-- The set of a partition that lists its sets by `key NUL status`; the engine's own keys have one of their own.
function index.registry(key)
  return partition .. (string.sub(key, 1, 9) == 'hookline.' and ':r:hookline' or ':r')
end

-- Keep the registry: a set is listed as long as it has members.
local function list(key, status, before, after)
  if before == 0 and after > 0 then
    redis.call('SADD', index.registry(key), key .. '\0' .. status)
  elseif before > 0 and after == 0 then
    redis.call('SREM', index.registry(key), key .. '\0' .. status)
  end
end

-- Note for the servers' sweep when something of the key becomes due or expires, at the earliest. Returns whether that is
-- earlier than what was noted before.
local function note_due(key, added)
  local earliest = math.huge
  for i = 1, #added, 2 do
    earliest = math.min(earliest, added[i])
  end
  return redis.pcall('ZADD', partition .. ':due', 'LT', 'CH', earliest, key) == 1
end

-- Make the moves. `index.ready` gathers the keys whose waiters are to be woken.
function index.flush()
  for key, sets in pairs(index.sets) do
    for status, set in pairs(sets) do
      local size = set.size
      if set.removed then
        size = size - index.write('ZREM', set.name, set.removed)
      end
      if set.added then
        size = size + index.write('ZADD', set.name, set.added)
        local earlier = (status == 'scheduled' or status == 'started') and note_due(key, set.added)
        -- Who waits must look: for what is ready, or to learn when the first will be due.
        if (status == 'not_started' and set.size == 0) or (status == 'scheduled' and earlier) then
          index.ready[#index.ready + 1] = key
        end
      end
      if size ~= set.size then
        list(key, status, set.size, size)
      end
    end
  end
  index.sets = {}
end
