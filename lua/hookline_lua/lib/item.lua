-- The view: items as the operations of this call see them, before anything is written.
-- use: clock index

local item = { view = {}, touched = {} }

-- The record of an item: `fields` as they stand in the view, `stored` whether the store has it.
function item.load(key, sort)
  local name = key .. ':' .. sort
  local record = item.view[name]
  if record then
    return record
  end
  record = { key = key, sort = sort, id = partition .. ':i:' .. name, fields = {}, changed = {}, delta = {} }
  local flat = redis.pcall('HGETALL', record.id)
  if flat.err then
    record.corrupt = true
  else
    for i = 1, #flat, 2 do
      record.fields[flat[i]] = flat[i + 1]
    end
    record.stored = #flat > 0
    record.exists = record.stored
    record.stored_status = record.fields.s
  end
  item.view[name] = record
  return record
end

-- Begin an operation on a record: from here `delta` holds the old value (or false) of each field that it changes.
function item.open(record)
  record.delta = {}
  record.was = record.exists
end

-- Set a field in the view; nil removes it.
function item.set(record, field, value)
  local old = record.fields[field]
  if old == value then
    return
  end
  if record.delta[field] == nil then
    record.delta[field] = old or false
  end
  record.fields[field] = value
  record.changed[field] = true
end

-- Undo what the operation since item.open did to the view.
function item.undo(record)
  for field, old in pairs(record.delta) do
    record.fields[field] = old or nil
  end
  record.exists = record.was
  record.delta = {}
end

-- Empty the record for a deletion, or for a creation after one.
function item.clear(record)
  for field in pairs(record.fields) do
    item.set(record, field, nil)
  end
end

-- End an operation: false (and undone) where an index that it needs has a wrong type.
function item.close(record)
  if not (index.sound_for(record.key, record.fields.s) and index.sound_for(record.key, record.stored_status)) then
    item.undo(record)
    return false
  end
  if not record.listed then
    record.listed = true
    table.insert(item.touched, record)
  end
  return true
end

local function push(groups, name, first, second)
  local group = groups[name]
  if not group then
    group = {}
    groups[name] = group
  end
  group[#group + 1] = first
  group[#group + 1] = second
end

local function write_hash(record)
  local set, gone = { 'HSET', record.id }, { 'HDEL', record.id }
  for field in pairs(record.changed) do
    local value = record.fields[field]
    if value then
      set[#set + 1] = field
      set[#set + 1] = value
    elseif record.stored then
      gone[#gone + 1] = field
    end
  end
  if #set > 2 then
    redis.call(unpack(set))
  end
  if #gone > 2 then
    redis.call(unpack(gone))
  end
end

-- The fields besides the status that move an item within the set of its status; other statuses go by `ua`.
local MOVES = { not_started = { 'p', 'at' }, scheduled = { 'at' }, started = { 'lu' } }

local function moves(record, status)
  for _, field in ipairs(MOVES[status] or { 'ua' }) do
    if record.changed[field] then
      return true
    end
  end
  return false
end

local function plan_indexes(record, add, remove, kinds)
  local before, after = record.stored_status, record.exists and record.fields.s
  if record.exists and not record.stored then
    push(add, index.sort_set(record.key), 0, record.sort)
    kinds[index.sort_set(record.key)] = record.key .. '\0'
  elseif record.stored and not record.exists then
    push(remove, index.sort_set(record.key), record.sort)
  end
  if before and before ~= after then
    push(remove, index.status_set(record.key, before), record.sort)
  end
  if after and (before ~= after or moves(record, after)) then
    local name = index.status_set(record.key, after)
    push(add, name, index.score(record.fields, record.place), record.sort)
    kinds[name] = record.key .. '\0' .. after
  end
end

-- Write what the view has changed: one HSET per item, index moves grouped by set.
-- Returns the keys whose `not_started` set was empty and is not any more.
function item.flush()
  local add, remove, kinds, ready = {}, {}, {}, {}
  for _, record in ipairs(item.touched) do
    plan_indexes(record, add, remove, kinds)
    if record.exists then
      write_hash(record)
    elseif record.stored then
      redis.call('DEL', record.id)
    end
    record.stored, record.stored_status = record.exists, record.exists and record.fields.s or nil
    record.changed, record.listed = {}, nil
  end
  for name, members in pairs(remove) do
    redis.call('ZREM', name, unpack(members))
  end
  for name, members in pairs(add) do
    redis.call('ZADD', name, unpack(members))
    if index.size[name] == 0 then
      redis.call('SADD', partition .. ':r', kinds[name])
      if string.sub(kinds[name], -12) == '\0not_started' then
        ready[#ready + 1] = string.sub(kinds[name], 1, -13)
      end
    end
  end
  item.touched, index.size = {}, {}
  return ready
end
