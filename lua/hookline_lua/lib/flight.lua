-- Claims of one worker that may hold only so many items of a key at once: which it holds, and by which tokens.
-- use: clock text index item lock

local flight = {}

function flight.reset()
  flight.notes = {}
end

-- Renewed by each claim that looks at it. What is held for longer keeps it for as long: 10 years at most, or until a time
-- that an update has named.
local KEPT_MS = 2592000000

-- No sortField has a NUL.
local BALLOT = '\0'

local function name_of(operation)
  return partition .. ':held:' .. operation.key .. ':' .. operation.worker
end

local function keep(note)
  redis.call('PEXPIRE', note.name, clock.text(math.max(KEPT_MS, note.last_ms - clock.ms)))
end

-- Until when a claim holds its slot; nil once it has ended: another token, another status, or the lock has expired.
local function held_until(key, sort, token)
  local known = item.view[key .. ':' .. sort]
  local fields = known and not known.partial and known.fields
  if not fields then
    local raws = redis.pcall('HMGET', item.prefix .. key .. ':' .. sort, 's', 'lu', 'tk')
    fields = { s = raws[1], lu = raws[2], tk = raws[3] }
  end
  return fields.tk == token and lock.live(fields) and tonumber(fields.lu) or nil
end

-- What the worker holds, read once a call; nil where the note of it is of a wrong type.
local function read(operation)
  local name = name_of(operation)
  local flat, ended = redis.pcall('HGETALL', name), {}
  if flat.err then
    return nil
  end
  local note = { name = name, sorts = {}, until_ms = math.huge, last_ms = 0, ballot = '' }
  for i = 1, #flat, 2 do
    local held_ms = flat[i] ~= BALLOT and held_until(operation.key, flat[i], flat[i + 1])
    if flat[i] == BALLOT then
      note.ballot = flat[i + 1]
    elseif held_ms then
      table.insert(note.sorts, flat[i])
      note.until_ms, note.last_ms = math.min(note.until_ms, held_ms), math.max(note.last_ms, held_ms)
    else
      ended[#ended + 1] = flat[i]
    end
  end
  index.write('HDEL', name, ended)
  return note
end

-- How many more items an operation may take, and what its worker holds; nil where the note of that is of a wrong type. Where
-- the bound is one of all partitions, a claim counts in each of them before it takes from any: under a ballot, which bars
-- those before it. One that is barred may take nothing, and learns the ballot.
function flight.free(operation)
  local name = name_of(operation)
  local note = flight.notes[name] or read(operation)
  if not note then
    return nil
  end
  flight.notes[name] = note
  local ballot = operation.ballot
  if ballot and text.compare(ballot, note.ballot) < 0 then
    return 0, note, note.ballot
  elseif ballot and ballot ~= note.ballot then
    note.ballot = ballot
    redis.call('HSET', name, BALLOT, ballot)
  end
  if ballot or #note.sorts > 0 then
    keep(note)
  end
  return math.max(0, operation.in_flight - #note.sorts), note
end

-- Note an item that the operation took. At once: what was not given after all is told by its token.
function flight.take(operation, record)
  local note = flight.notes[name_of(operation)]
  redis.call('HSET', note.name, record.sort, record.fields.tk)
  table.insert(note.sorts, record.sort)
  local until_ms = tonumber(record.fields.lu)
  note.until_ms, note.last_ms = math.min(note.until_ms, until_ms), math.max(note.last_ms, until_ms)
  keep(note)
end

-- A lock that was prolonged beyond that keeps the note of its claim, if there is one.
function flight.outlast(record)
  local left = tonumber(record.fields.lu) - clock.ms
  local worker = left > KEPT_MS and redis.call('HGET', item.prefix .. record.key .. ':' .. record.sort, 'w')
  if worker then
    redis.pcall('PEXPIRE', partition .. ':held:' .. record.key .. ':' .. worker, clock.text(left), 'GT')
  end
end
