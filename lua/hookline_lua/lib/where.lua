-- Filters: whether the fields that they name hold. hookline/where.py writes the conditions.
-- use: clock text

local where = {}

-- cmsgpack reads the upper half of this type as negative numbers.
local UINT64 = 207
-- To a filter null and absent are the same, as they are to an update.
local NULL = '\192'
-- From here on doubles run together, so there equality is that of the packed bytes alone.
local EXACT = 9007199254740992

-- The values that an equality accepts, each by all the forms in which it may be met.
local function gather(operands)
  local sought = { packed = {}, values = {}, instants = {}, null = false }
  for _, operand in ipairs(operands) do
    local kind = type(operand.value)
    if operand.packed == NULL then
      sought.null = true
    elseif kind == 'number' or kind == 'string' or kind == 'boolean' then
      sought.values[operand.value] = true
    end
    if operand.packed then
      sought.packed[operand.packed] = true
    end
    if operand.time then
      sought.instants[tonumber(clock.resolve(operand.time))] = true
    end
  end
  return sought
end

-- Once for all items that a list of conditions is asked of.
local function prepare(conditions)
  conditions.names = {}
  for i, condition in ipairs(conditions) do
    local operand = condition.operand
    conditions.names[i] = condition.field
    condition.sought = gather(condition.operands or { operand })
    condition.instant = operand and operand.time and tonumber(clock.resolve(operand.time))
  end
end

local function unpack_value(raw)
  local value = cmsgpack.unpack(raw)
  if string.byte(raw) == UINT64 and value < 0 then
    value = value + 2 ^ 64
  end
  return value
end

-- The value that a condition speaks of: an engine's own as it is kept, a user's field by its path. `decoded` holds the
-- fields of this item that were decoded already: many conditions may ask for one.
local function actual(raw, condition, decoded)
  if condition.native == 'number' then
    return tonumber(raw)
  elseif condition.native then
    return raw
  end
  local value = decoded[condition.field]
  if value == nil then
    value = unpack_value(raw)
    decoded[condition.field] = value
  end
  for _, name in ipairs(condition.path) do
    if type(value) ~= 'table' then
      return nil
    end
    value = value[name]
  end
  return value
end

-- The moment that a value stands for, or nil.
local function instant_of(value, condition)
  if condition.native then
    return type(value) == 'number' and value or nil
  end
  return type(value) == 'string' and clock.parse(value) or nil
end

local function equal(raw, value, condition)
  local sought = condition.sought
  if value == nil then
    return sought.null
  elseif not condition.native and #condition.path == 0 and sought.packed[raw] then
    return true
  elseif type(value) == 'table' or (type(value) == 'number' and math.abs(value) >= EXACT) then
    return false
  elseif sought.values[value] then
    return true
  end
  local instant = next(sought.instants) and instant_of(value, condition)
  return instant and sought.instants[instant] or false
end

-- -1, 0 or 1; nil where the two are of different kinds. Two times compare as instants.
local function compare(value, condition)
  local other = condition.operand.value
  local instant = condition.instant and instant_of(value, condition)
  if instant then
    value, other = instant, condition.instant
  end
  if type(value) == 'number' and type(other) == 'number' then
    return value < other and -1 or value > other and 1 or 0
  elseif type(value) == 'string' and type(other) == 'string' then
    return text.compare(value, other)
  end
  return nil
end

local TESTS = {
  eq = equal,
  ne = function(raw, value, condition)
    return not equal(raw, value, condition)
  end,
  lt = function(_, value, condition)
    return compare(value, condition) == -1
  end,
  lte = function(_, value, condition)
    return (compare(value, condition) or 1) <= 0
  end,
  gt = function(_, value, condition)
    return compare(value, condition) == 1
  end,
  gte = function(_, value, condition)
    return (compare(value, condition) or -1) >= 0
  end,
  exists = function(_, value, condition)
    return (value ~= nil) == condition.wanted
  end,
  prefix = function(_, value, condition)
    local start = condition.operand.value
    return type(value) == 'string' and string.sub(value, 1, #start) == start
  end,
}
TESTS['in'] = equal

local function test(raw, condition, decoded)
  local value = nil
  if raw then
    value = actual(raw, condition, decoded)
  end
  return TESTS[condition.test](raw, value, condition)
end

-- What it costs to decode a value, in entries: lists and maps are made of many parts.
local function cost_of(raw)
  local kind = string.byte(raw)
  local container = (kind >= 128 and kind <= 159) or (kind >= 220 and kind <= 223)
  return #raw / (container and 10 or 128)
end

-- Whether all conditions hold for the item kept at `id`, and the work that it took to say so: about 3 us each.
function where.holds(id, conditions)
  if #conditions == 0 then
    return true, 0
  elseif not conditions.names then
    prepare(conditions)
  end
  local raws = redis.pcall('HMGET', id, unpack(conditions.names))
  if raws.err then
    return false, 1
  end
  local work, decoded = 0.5, {}
  for i, condition in ipairs(conditions) do
    local raw = raws[i]
    work = work + 0.5 + (raw and cost_of(raw) or 0)
    if not test(raw, condition, decoded) then
      return false, work
    end
  end
  return true, work
end

-- Whether all conditions hold for these fields.
function where.matches(fields, conditions)
  if not conditions.names then
    prepare(conditions)
  end
  local decoded = {}
  for _, condition in ipairs(conditions) do
    if not test(fields[condition.field], condition, decoded) then
      return false
    end
  end
  return true
end
