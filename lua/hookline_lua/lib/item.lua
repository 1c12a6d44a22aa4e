-- The view: items as the operations of this call see them, before anything is written.
-- use: index declared

local item = { view = {}, touched = {}, changed = {}, growth = {} }

-- The record of an item: `fields` as they stand in the view, `stored` whether the store has it.
function item.load(key, sort)
  local name = key .. ':' .. sort
  local record = item.view[name]
  if record then
    return record
  end
  local id = partition .. ':i:' .. name
  local flat = redis.pcall('HGETALL', id)
  local fields = {}
  record = { key = key, sort = sort, id = id, fields = fields, kept = {}, delta = {}, exists = #flat > 0 }
  if flat.err then
    record.corrupt = true
  end
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  record.stored, record.stored_status = record.exists, fields.s
  item.view[name] = record
  return record
end

-- An item by some of its fields, for a change that concerns no more than these and is flushed before anybody else looks.
function item.peek(key, sort, names)
  local known = item.view[key .. ':' .. sort]
  if known then
    return known
  end
  local id = partition .. ':i:' .. key .. ':' .. sort
  local raws, fields = redis.pcall('HMGET', id, unpack(names)), {}
  for i, name in ipairs(names) do
    fields[name] = raws[i] or nil
  end
  local record = { key = key, sort = sort, id = id, fields = fields, kept = {}, delta = {}, exists = fields.v ~= nil }
  record.stored, record.stored_status = record.exists, fields.s
  return record
end

-- Begin an operation on a record: from here `delta` holds the old value (or false) of each field that it changes.
function item.open(record)
  record.delta = {}
  record.was = record.exists
end

-- Set a field in the view; nil removes it. `kept` holds what the store has (or false) of each field ever touched.
function item.set(record, field, value)
  local fields = record.fields
  local old = fields[field]
  if old == value then
    return
  end
  local delta, kept = record.delta, record.kept
  if delta[field] == nil then
    delta[field] = old or false
  end
  if kept[field] == nil then
    kept[field] = old or false
  end
  fields[field] = value
end

-- Undo what the operation since item.open did to the view.
function item.undo(record)
  for field, old in pairs(record.delta) do
    record.fields[field] = old or nil
  end
  record.exists = record.was
  record.delta = {}
end

-- Note that this call makes a key so much longer, or shorter.
function item.grow(key, by)
  item.growth[key] = (item.growth[key] or 0) + by
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

local function write_hash(record)
  local fields, set, gone = record.fields, {}, {}
  local n = 0
  for field, kept in pairs(record.kept) do
    local value = fields[field]
    if value and value ~= kept then
      set[n + 1] = field
      set[n + 2] = value
      n = n + 2
    elseif kept and not value then
      gone[#gone + 1] = field
    end
  end
  index.write('HSET', record.id, set)
  index.write('HDEL', record.id, gone)
end

local function differs(record, field)
  local kept = record.kept[field]
  return kept ~= nil and kept ~= (record.fields[field] or false)
end

-- Whether the item's place within the set of its status has changed; most statuses go by the time of update.
local function moved(record, status)
  if status == 'not_started' then
    return differs(record, 'p') or differs(record, 'at')
  elseif status == 'scheduled' then
    return differs(record, 'at')
  elseif status == 'started' then
    -- With other limits a lock that has expired may be one to bury: the sweep must look again.
    return differs(record, 'lu') or differs(record, 'a') or differs(record, 'ma')
  end
  return differs(record, 'ua')
end

local function move(record)
  local key, sort, before = record.key, record.sort, record.stored_status
  local after = record.exists and record.fields.s or nil
  if record.exists ~= record.stored then
    if record.exists then
      index.add(key, '', 0, sort)
    else
      index.remove(key, '', sort)
    end
  end
  if before and before ~= after then
    index.remove(key, before, sort)
  end
  if after and (before ~= after or moved(record, after)) then
    index.add(key, after, index.score(record.fields, record.place), sort)
  end
  declared.move(record)
end

-- Write what the view has changed: one HSET per item, index moves grouped by set.
function item.flush()
  for _, record in ipairs(item.touched) do
    move(record)
    if record.exists then
      write_hash(record)
    elseif record.stored then
      redis.call('DEL', record.id)
    end
    item.changed[#item.changed + 1] = record.id
    record.stored, record.stored_status = record.exists, record.exists and record.fields.s or nil
    record.kept, record.listed = {}, nil
  end
  item.touched = {}
  index.flush()
end
