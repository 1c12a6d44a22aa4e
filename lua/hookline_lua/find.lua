#!lua flags=no-writes
-- Read items: one by its name, or a page of a key in the order of one of its sets, within a budget of work; and count.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock settings index declared where range

local find = {}

-- What an entry costs that nothing is asked of, in work.
local LEAST_WORK = 0.3

-- The fields of an item one after the other, without its token, and how many bytes they are; or nil and the word that says
-- why there are none.
local function read(id)
  local flat = redis.pcall('HGETALL', id)
  if flat.err then
    return nil, outcome.corrupt
  elseif #flat == 0 then
    return nil, outcome.not_found
  end
  local bytes, token, last = 0, nil, #flat
  for i = 1, last, 2 do
    bytes = bytes + #flat[i] + #flat[i + 1]
    if flat[i] == 'tk' then
      token = i
    end
  end
  if token then
    flat[token], flat[token + 1] = flat[last - 1], flat[last]
    flat[last - 1], flat[last] = nil, nil
  end
  return flat, bytes
end

local function named(flat)
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return fields
end

-- One item; nothing of it where it does not meet the filters, or when this call has given so much that it must be asked
-- for `again`.
function find.get(operation)
  if find.bytes <= 0 then
    return { outcome.ok, false, { again = true } }
  end
  local fields, bytes = read(partition .. ':i:' .. operation.key .. ':' .. operation.sort)
  if not fields then
    return { bytes, false, false }
  elseif operation.where and not where.matches(named(fields), operation.sort, operation.where) then
    return { outcome.ok, false, false }
  end
  find.bytes = find.bytes - bytes
  return { outcome.ok, fields, false }
end

-- Why the set of a walk can't be read here as the caller planned, as an answer; or nil. What the caller knows may be
-- newer than this partition, if a change of settings is under way.
local function obstacle(operation)
  local own = settings.of(operation.key)
  if not (own and index.probe('ZCARD', index.name(operation.key, operation.label))) then
    return { outcome.corrupt, false, false }
  elseif (tonumber(own.generation) or 0) > operation.generation then
    return { outcome.settings_changed, false, { settings = own } }
  elseif string.byte(operation.label) == 0 and not declared.complete(operation.key, operation.label, operation.kind) then
    return { outcome.ok, false, { unusable = true } }
  end
  return nil
end

-- Walk the entries of the set in the order asked for, and have each item that meets the filters taken by
-- `take(sort, score, member, id)`, which answers with the work that it did: up to `limit` of them, as far as the budget
-- reaches. Returns how many were looked at and, if not all were, the last of them.
local function walk(operation, take)
  local name, budget = index.name(operation.key, operation.label), operation.budget
  local conditions = operation.exact and {} or operation.where -- what the ends of the walk say already
  local examined, taken, after = 0, 0, operation.after
  for first, last in range.parts(name, operation) do
    for score, member in range.entries(name, first, last, operation.descending) do
      if budget <= 0 or taken == operation.limit or (after and clock.late()) then
        return examined, after
      end
      local sort = declared.sort_of(member)
      local id = partition .. ':i:' .. operation.key .. ':' .. sort
      local held, work = where.holds(id, sort, conditions)
      if held then
        taken = taken + 1
        work = work + take(sort, score, member, id)
      end
      budget, examined = budget - math.max(work, LEAST_WORK), examined + 1
      after = { score, member }
    end
  end
  return examined, nil
end

-- A page. The budget is counted in entries of about 3 us: an item shown costs two and one for each 4 KiB of it, so that a
-- page stays below 4 MiB.
function find.query(operation)
  local items = {}
  local examined, after = walk(operation, function(sort, score, member, id)
    local fields, bytes = read(id)
    if not fields then
      return 2
    end
    items[#items + 1] = { sort, fields, score, member ~= sort and member or false, bytes }
    return 2 + bytes / 4096
  end)
  return { outcome.ok, false, { items = items, after = after or false, examined = examined } }
end

local function size_of(operation)
  return range.size(index.name(operation.key, operation.label), operation)
end

-- How many match: where the range says all that the filters do, by its ends alone.
function find.count(operation)
  if operation.exact then
    return { outcome.ok, false, { count = size_of(operation), examined = 0 } }
  end
  local count = 0
  local examined, after = walk(operation, function()
    count = count + 1
    return 0
  end)
  return { outcome.ok, false, { count = count, after = after or false, examined = examined } }
end

-- How many entries a walk would have before it.
function find.size(operation)
  return { outcome.ok, false, { size = size_of(operation) } }
end

return function()
  find.bytes = 4194304
  local outcomes = {}
  for place, operation in ipairs(request) do
    outcomes[place] = operation.label and obstacle(operation) or find[operation.verb](operation)
  end
  return cmsgpack.pack(outcomes)
end
