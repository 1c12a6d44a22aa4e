-- Filters: whether the fields that they name hold. hookline/where.py writes the conditions.
-- use: clock

local where = {}

-- cmsgpack reads the upper half of this type as negative numbers.
local UINT64 = 207

-- The value that a condition speaks of, decoded: a user's field by its path, an engine's own as it is kept.
local function actual(raw, condition)
  if condition.native == 'number' then
    return tonumber(raw)
  elseif condition.native then
    return raw
  end
  local value = cmsgpack.unpack(raw)
  if string.byte(raw) == UINT64 and value < 0 then
    value = value + 2 ^ 64
  end
  for _, name in ipairs(condition.path) do
    if type(value) ~= 'table' then
      return nil
    end
    value = value[name]
  end
  return value
end

-- -1, 0 or 1; nil where the two are of different kinds. Two times compare as instants.
local function compare(value, operand, native)
  local other = operand.value
  local instant = operand.time and (native and value or type(value) == 'string' and clock.parse(value))
  if instant then
    value, other = instant, tonumber(clock.resolve(operand.time))
  end
  if type(value) ~= type(other) or (type(value) ~= 'number' and type(value) ~= 'string') then
    return nil
  end
  return value < other and -1 or value > other and 1 or 0
end

-- To a filter null and absent are the same, as they are to an update.
local NULL = '\192'

-- Beyond 2^53 doubles run together, so there equality is that of the packed bytes alone.
local function equal(raw, value, operand, condition)
  if value == nil or operand.packed == NULL then
    return value == nil and operand.packed == NULL
  elseif not condition.native and #condition.path == 0 and raw == operand.packed then
    return true
  elseif type(value) == 'number' and type(operand.value) == 'number' and math.abs(value) >= 9007199254740992 then
    return false
  elseif type(value) == 'boolean' or type(operand.value) == 'boolean' then
    return value == operand.value
  end
  return compare(value, operand, condition.native) == 0
end

local TESTS = {
  eq = function(raw, value, condition)
    return equal(raw, value, condition.operand, condition)
  end,
  ne = function(raw, value, condition)
    return not equal(raw, value, condition.operand, condition)
  end,
  lt = function(_, value, condition)
    return compare(value, condition.operand, condition.native) == -1
  end,
  lte = function(_, value, condition)
    return (compare(value, condition.operand, condition.native) or 1) <= 0
  end,
  gt = function(_, value, condition)
    return compare(value, condition.operand, condition.native) == 1
  end,
  gte = function(_, value, condition)
    return (compare(value, condition.operand, condition.native) or -1) >= 0
  end,
  prefix = function(_, value, condition)
    local text = condition.operand.value
    return type(value) == 'string' and string.sub(value, 1, #text) == text
  end,
}
TESTS['in'] = function(raw, value, condition)
  for _, operand in ipairs(condition.operands) do
    if equal(raw, value, operand, condition) then
      return true
    end
  end
  return false
end

local function holds(raw, condition)
  local value = nil
  if raw then
    value = actual(raw, condition)
  end
  if condition.test == 'exists' then
    return (value ~= nil) == condition.wanted
  end
  return TESTS[condition.test](raw, value, condition)
end

-- Whether all conditions hold for the item kept at `id`; reads only the fields that they name.
function where.holds(id, conditions)
  local names = {}
  for i, condition in ipairs(conditions) do
    names[i] = condition.field
  end
  local raws = redis.pcall('HMGET', id, unpack(names))
  if raws.err then
    return false
  end
  for i, condition in ipairs(conditions) do
    if not holds(raws[i], condition) then
      return false
    end
  end
  return true
end
