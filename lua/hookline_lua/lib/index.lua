-- The sorted sets that follow the items. Within a key each has a label: a status, '' for the set of all sortFields, or NUL
-- and the name of a declared index.
-- use: clock settings text wake

-- The scores in line begin at 2024, and those of one priority have a band of 28 years.
local index = { epoch_ms = 1704067200000, band = 9e14 }

function index.reset()
  index.sets, index.bases, index.ready = {}, {}, {}
end

-- Whether a key is of the type we write there (or absent); its size, or nil where it is of another type.
function index.probe(command, name)
  local size = redis.pcall(command, name)
  return type(size) == 'number' and size or nil
end

-- The answer of a command; nil where the key is of another type: it counts nothing then, and the verbs that need it say
-- `corrupt`.
function index.ask(...)
  local answer = redis.pcall(...)
  return not (type(answer) == 'table' and answer.err) and answer or nil
end

function index.name(key, label)
  if label == '' then
    return partition .. ':k:' .. key
  elseif string.byte(label) == 0 then
    return partition .. ':x:' .. key .. ':' .. string.sub(label, 2)
  end
  return partition .. ':s:' .. key .. ':' .. label
end

-- A set with the moves that wait for it, probed once a call; `size` is nil where something else has its name.
function index.set(key, label)
  local sets = index.sets[key]
  if not sets then
    sets = {}
    index.sets[key] = sets
  end
  local set = sets[label]
  if not set then
    local name = index.name(key, label)
    set = { name = name, size = index.probe('ZCARD', name) }
    sets[label] = set
  end
  return set
end

-- Whether the store has nothing in a set, whatever waits for it.
function index.empty(key, label)
  return index.set(key, label).size == 0
end

-- Whether the sets of all sortFields, and of the statuses that hold, or will hold, an item can be written.
function index.sound(key, before, after)
  local base = index.bases[key]
  if base == nil then
    base = index.probe('SCARD', index.registry(key)) and index.set(key, '').size and true or false
    index.bases[key] = base
  end
  return base and (not before or index.set(key, before).size) and (not after or index.set(key, after).size)
end

-- Where an item stands in line: by priority, then by when it became ready; `place` orders what did so in the same
-- millisecond. Times before its priority's band, or after it, stand at that end of it.
function index.place(priority, ready_ms, place)
  local time = math.max(0, math.min(index.band - 1000, (ready_ms - index.epoch_ms) * 1000))
  return (9 - tonumber(priority or 5)) * index.band + time + math.min(999, place)
end

-- Where an item stands in the set of its status.
function index.score(fields, place)
  local status = fields.s
  if status == 'not_started' then
    return index.place(fields.p, tonumber(fields.at or fields.ua), place or 0)
  elseif status == 'scheduled' then
    return tonumber(fields.at)
  elseif status == 'started' then
    return tonumber(fields.lu or 0)
  end
  return tonumber(fields.ua)
end

-- The set, and its moves of one kind that wait: `added`, each score before its member, or `removed`.
local function moves(key, label, kind)
  local sets = index.sets[key]
  local set = sets and sets[label] or index.set(key, label)
  local list = set[kind]
  if not list then
    list = {}
    set[kind] = list
  end
  return list
end

-- What is to be added to a set, each score before its member: for who has many to add.
function index.added(key, label)
  return moves(key, label, 'added')
end

function index.add(key, label, score, member)
  local added = moves(key, label, 'added')
  local n = #added
  added[n + 1], added[n + 2] = score, member
end

function index.remove(key, label, member)
  local removed = moves(key, label, 'removed')
  removed[#removed + 1] = member
end

-- Lua passes at most 8,000 values at once, and a batch may bring more. The sum of what the store answers.
function index.write(command, name, values)
  if #values == 0 then
    return 0
  elseif #values <= 4000 then
    return redis.call(command, name, unpack(values))
  end
  local sum = 0
  for first = 1, #values, 4000 do
    sum = sum + redis.call(command, name, unpack(values, first, math.min(first + 3999, #values)))
  end
  return sum
end

-- How many entries stand before a place, those at the place itself counted unless `before`, whether or not anything still
-- stands there.
function index.rank(name, score, member, before)
  local first = redis.call('ZCOUNT', name, '-inf', '(' .. score)
  local last = redis.call('ZCOUNT', name, '-inf', score)
  while first < last do
    local middle = math.floor((first + last) / 2)
    local order = text.compare(redis.call('ZRANGE', name, middle, middle)[1], member)
    if order < 0 or (order == 0 and not before) then
      first = middle + 1
    else
      last = middle
    end
  end
  return first
end

-- The set of a partition that lists its sets by `key NUL status`; the engine's own keys have one of their own.
function index.registry(key)
  return partition .. (string.sub(key, 1, 9) == 'hookline.' and ':r:hookline' or ':r')
end

-- Keep the registry: a set is listed as long as it has members. The declared ones are listed by the key's settings.
local function list(key, label, before, after)
  if string.byte(label) == 0 then
    return
  elseif before == 0 and after > 0 then
    redis.call('SADD', index.registry(key), key .. '\0' .. label)
  elseif before > 0 and after == 0 then
    redis.call('SREM', index.registry(key), key .. '\0' .. label)
    if label == 'not_started' or label == '' then
      wake.hush(key)
    end
  end
end

-- Note for the servers' sweep when it must look at the key, at the latest. Returns whether that is earlier than what was
-- noted before.
local function note_due(key, at)
  return redis.pcall('ZADD', partition .. ':due', 'LT', 'CH', at, key) == 1
end

-- When something that was added to a set of a key becomes due, expires, or need not be kept any more; or nil.
local function due_at(key, label, set, size)
  local after = 0
  if label ~= 'scheduled' and label ~= 'started' then
    local age, count = settings.kept(key, label)
    if count and size > count then
      return clock.ms
    elseif not age then
      return nil
    end
    after = age
  end
  local earliest = math.huge
  for i = 1, #set.added, 2 do
    earliest = math.min(earliest, set.added[i])
  end
  return earliest + after
end

-- Whether what was added, the first of it at this score, stands first of all: who waits has learnt of what stood there
-- before, and of nothing behind it. Relays know by themselves when they look at the engine's own keys again.
local function is_first(key, set, at)
  return string.sub(key, 1, 9) ~= 'hookline.' and at <= tonumber(redis.call('ZRANGE', set.name, 0, 0, 'WITHSCORES')[2])
end

-- Make the moves. `index.ready` gathers the keys whose waiters are to be woken, and the set for which.
function index.flush()
  for key, sets in pairs(index.sets) do
    for label, set in pairs(sets) do
      local size = set.size
      if set.removed then
        size = size - index.write('ZREM', set.name, set.removed)
      end
      if set.added then
        size = size + index.write('ZADD', set.name, set.added)
        local at = due_at(key, label, set, size)
        local earlier = at and note_due(key, at)
        -- Who waits must look: for what is ready, or to learn when the first will be due.
        local scheduled = label == 'scheduled' and (earlier or is_first(key, set, at))
        if scheduled or (label == 'not_started' and set.size == 0) then
          index.ready[key] = index.ready[key] == 'scheduled' and 'scheduled' or label
        end
      end
      if size ~= set.size then
        list(key, label, set.size, size)
      end
    end
  end
  index.sets = {}
end
