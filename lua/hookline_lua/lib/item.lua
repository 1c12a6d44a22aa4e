-- The view: items as the operations of this call see them, before anything is written.
-- use: index declared

local item = {}

function item.reset()
  item.view, item.touched, item.changed, item.growth, item.ahead = {}, {}, {}, {}, {}
  item.prefix = partition .. ':i:'
end

-- A table that grows from nothing is made anew at each power of two, which costs more than all that is put into it: so these
-- begin with room for what most items have.
local function room_for_fields()
  return { v = nil, s = nil, c = nil, ca = nil, ua = nil, at = nil, a = nil, w = nil, sa = nil, lu = nil, tk = nil, da = nil }
end

local function room_for_changes()
  return { v = nil, s = nil, ua = nil, lu = nil, tk = nil, a = nil, w = nil, sa = nil }
end

local function new_record(key, sort, id, fields, there)
  return { key = key, sort = sort, id = id, fields = fields, exists = there, stored = there, stored_status = fields.s,
    delta = nil, was = nil, listed = nil, partial = nil, corrupt = nil }
end

-- Read what a record that knows only some fields lacks.
local function complete(record)
  local flat = record.exists and redis.pcall('HGETALL', record.id) or {}
  for i = 1, #flat, 2 do
    if not record.partial[flat[i]] then
      record.fields[flat[i]] = flat[i + 1]
    end
  end
  record.partial = nil
  return record
end

-- What the scripts reckon with, added up: fails where one of them is no number, is none where one is not finite.
local function reckon(fields)
  return fields.v + (fields.ua or 0) + (fields.at or 0) + (fields.lu or 0) + (fields.sd or 0) + (fields.p or 0)
    + (fields.a or 0) + (fields.cr or 0) + (fields.fa or 0) + (fields.re or 0)
end

-- A hash that can be no item, since it lacks its version or one of its numbers is none, counts as none; but it is stored.
local function check(record)
  local fields = record.fields
  if not next(fields) then
    return
  end
  local fit, sum = pcall(reckon, fields)
  if not fit or sum - sum ~= 0 then
    record.corrupt, record.exists, record.stored = true, false, true
  end
end

-- The record of an item: `fields` as they stand in the view, `stored` whether the store has it.
function item.load(key, sort)
  local name = key .. ':' .. sort
  local record = item.view[name]
  if record then
    return record.partial and complete(record) or record
  elseif item.ahead[name] then
    -- Moves on top of those that wait would be made before them.
    index.flush()
    item.ahead = {}
  end
  local id = item.prefix .. name
  local flat, fields = redis.pcall('HGETALL', id), room_for_fields()
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  record = new_record(key, sort, id, fields, #flat > 0)
  if flat.err then
    record.corrupt = true
  end
  check(record)
  item.view[name] = record
  return record
end

-- The record of an item with no more than these fields, for who needs and changes no others: content may be large.
function item.peek(key, sort, names)
  local name = key .. ':' .. sort
  if item.view[name] or item.ahead[name] then
    return item.load(key, sort)
  end
  local id = item.prefix .. name
  local raws, fields, partial = redis.pcall('HMGET', id, unpack(names)), {}, {}
  for i, field in ipairs(names) do
    fields[field] = raws[i] or nil
    partial[field] = true
  end
  local record = new_record(key, sort, id, fields, fields.v ~= nil)
  record.corrupt, record.partial = raws.err and true, partial
  check(record)
  item.view[name] = record
  return record
end

-- What the store has (or false) of each field that this call has changed: `kept` by the operations before, `delta` by the
-- last.
local function before_call(record)
  local kept, delta = record.kept, record.delta or {}
  if not kept then
    return delta
  end
  for field, old in pairs(delta) do
    if kept[field] == nil then
      kept[field] = old
    end
  end
  return kept
end

-- Begin an operation on a record: from here `delta` holds the old value (or false) of each field that it changes.
function item.open(record)
  if record.delta then
    record.kept = before_call(record)
  end
  record.delta = room_for_changes()
  record.was = record.exists
end

-- Begin to make an item. Of what the store does not have, no old values need be held.
function item.begin(record)
  if record.stored then
    item.open(record)
  else
    record.delta, record.was = nil, false
  end
  record.exists = true
end

-- Set a field in the view; nil removes it.
function item.set(record, field, value)
  local fields = record.fields
  local old = fields[field]
  if old ~= value then
    local delta = record.delta
    if delta and delta[field] == nil then
      delta[field] = old or false
    end
    fields[field] = value
  end
end

-- Undo what the operation since item.open or item.begin did to the view.
function item.undo(record)
  if not record.delta then
    record.fields = {}
  end
  for field, old in pairs(record.delta or {}) do
    record.fields[field] = old or nil
  end
  record.exists = record.was
  record.delta = record.delta and {}
end

-- Note that an item was written already, ahead of the moves of its indexes.
function item.written(name, id)
  item.ahead[name] = true
  item.changed[#item.changed + 1] = id
end

-- Note that this call makes a key so much longer, or shorter.
function item.grow(key, by)
  item.growth[key] = (item.growth[key] or 0) + by
end

-- Fields of the user's own that an item may come to have; engine/hookline/item.py says the same, and what it is for.
local OWN_MAX, WRITE_MAX, NONE = 1024, 256, {}

-- Whether an item has so few fields in the store that one write more can't be too much.
function item.roomy(id)
  return redis.call('HLEN', id) <= OWN_MAX - WRITE_MAX
end

local function adds(record, field)
  return record.delta[field] == false and string.sub(field, 1, 2) == 'm:'
end

local function adds_one(record, operation)
  for field in pairs(operation.set or NONE) do
    if adds(record, field) then
      return true
    end
  end
  for _, field in ipairs(operation.now or NONE) do
    if adds(record, field) then
      return true
    end
  end
  return false
end

-- Whether an operation adds fields of the user's own, and the item then has too many. What is new has those of one write.
function item.overfull(record, operation)
  if not record.delta or not adds_one(record, operation) then
    return false
  elseif record.partial then
    if item.roomy(record.id) then
      return false
    end
    complete(record)
  end
  local own = 0
  for field in pairs(record.fields) do
    own = own + (string.sub(field, 1, 2) == 'm:' and 1 or 0)
  end
  return own > OWN_MAX
end

-- Empty the record, for its deletion.
function item.clear(record)
  item.grow(record.key, -1)
  for field in pairs(record.fields) do
    item.set(record, field, nil)
  end
  record.exists = false
end

-- End an operation: false (and undone) where an index that it needs has a wrong type.
function item.close(record)
  if not (index.sound(record.key, record.stored_status, record.fields.s) and declared.sound(record.key)) then
    item.undo(record)
    return false
  end
  if not record.listed then
    record.listed = true
    item.touched[#item.touched + 1] = record
  end
  return true
end

-- All fields of an item that is new, those that differ of any other.
local function write_hash(record, before)
  local fields, gone, n = record.fields, {}, 0
  local set = { nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil }
  if not record.stored then
    for field, value in pairs(fields) do
      set[n + 1], set[n + 2] = field, value
      n = n + 2
    end
  else
    for field, old in pairs(before) do
      local value = fields[field]
      if not value then
        gone[#gone + 1] = old and field or nil
      elseif value ~= old then
        set[n + 1], set[n + 2] = field, value
        n = n + 2
      end
    end
  end
  index.write('HSET', record.id, set)
  index.write('HDEL', record.id, gone)
end

-- Whether the item's place within the set of its status has changed; most statuses go by the time of update.
local function moved(record, status, before)
  local function differs(field)
    return before[field] ~= nil and before[field] ~= (record.fields[field] or false)
  end
  if status == 'not_started' then
    return differs('p') or differs('at')
  elseif status == 'scheduled' then
    return differs('at')
  elseif status == 'started' then
    -- With other limits a lock that has expired may be one to bury: the sweep must look again.
    return differs('lu') or differs('a') or differs('ma')
  end
  return differs('ua')
end

local function move(record, before)
  local key, sort, from = record.key, record.sort, record.stored_status
  local to = record.exists and record.fields.s or nil
  if record.exists ~= record.stored then
    if record.exists then
      index.add(key, '', 0, sort)
    else
      index.remove(key, '', sort)
    end
  end
  if from and from ~= to then
    index.remove(key, from, sort)
  end
  if to and (from ~= to or moved(record, to, before)) then
    index.add(key, to, index.score(record.fields, record.place), sort)
  end
  declared.move(record, before)
end

-- Write what the view has changed: one HSET per item, index moves grouped by set.
function item.flush()
  for place, record in ipairs(item.touched) do
    local before = before_call(record)
    move(record, before)
    if record.exists then
      write_hash(record, before)
    elseif record.stored then
      redis.call('DEL', record.id)
    end
    item.changed[#item.changed + 1] = record.id
    record.stored, record.stored_status = record.exists, record.exists and record.fields.s or nil
    record.kept, record.delta, record.listed = nil, nil, nil
    item.touched[place] = nil
  end
  index.flush()
end
