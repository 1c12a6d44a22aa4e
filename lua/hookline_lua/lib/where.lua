-- Filters: whether the fields that they name hold. hookline/where.py writes the conditions.
-- use: clock text value

local where = {}

-- To a filter null and absent are the same, as they are to an update.
local NULL = '\192'
-- From here on doubles run together, so there the packed bytes say which is which; but within an object, of which nothing
-- but the whole is packed.
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

-- The same of a condition, once for all items that it is asked of, and not before one of them gets as far as this.
local function sought_by(condition)
  local sought = condition.sought
  if not sought then
    sought = gather(condition.operands or { condition.operand })
    condition.sought = sought
  end
  return sought
end

local function names_of(conditions)
  local names = conditions.names
  if not names then
    names = {}
    for i, condition in ipairs(conditions) do
      names[i] = condition.field
    end
    conditions.names = names
  end
  return names
end

-- The value that a condition speaks of. `decoded` holds the fields of this item that were decoded already: many
-- conditions may ask for one.
local function actual(raw, condition, decoded)
  if condition.native then
    return value.of(condition, raw)
  end
  local whole = decoded[condition.field]
  if whole == nil then
    whole = value.unpack(raw)
    decoded[condition.field] = whole
  end
  return value.follow(condition.path, whole)
end

local function equal(raw, found, condition)
  local sought, whole = sought_by(condition), not condition.native and #condition.path == 0
  if found == nil then
    return sought.null
  elseif whole and sought.packed[raw] then
    return true
  elseif type(found) == 'table' or (whole and type(found) == 'number' and math.abs(found) >= EXACT) then
    return false
  elseif sought.values[found] then
    return true
  end
  local instant = next(sought.instants) and value.instant(condition, found)
  return instant and sought.instants[instant] or false
end

-- Two of one double, as -1, 0 or 1: large integers of one sign order as their bytes do.
local function compare_packed(raw, condition)
  local packed = condition.operand.packed
  if condition.native or #condition.path > 0 or not packed or string.byte(raw) ~= string.byte(packed) then
    return 0
  end
  return text.compare(raw, packed)
end

-- -1, 0 or 1; nil where the two are of different kinds. A time compares with times, as instants.
local function compare(raw, found, condition)
  local other, time = condition.operand.value, condition.operand.time
  if time then
    condition.instant = condition.instant or tonumber(clock.resolve(time))
    found, other = value.instant(condition, found), condition.instant
  end
  if type(found) == 'number' and type(other) == 'number' then
    if found == other and math.abs(found) >= EXACT then
      return compare_packed(raw, condition)
    end
    return found < other and -1 or found > other and 1 or 0
  elseif type(found) == 'string' and type(other) == 'string' then
    return text.compare(found, other)
  end
  return nil
end

local TESTS = {
  eq = equal,
  ne = function(raw, found, condition)
    return not equal(raw, found, condition)
  end,
  lt = function(raw, found, condition)
    return compare(raw, found, condition) == -1
  end,
  lte = function(raw, found, condition)
    return (compare(raw, found, condition) or 1) <= 0
  end,
  gt = function(raw, found, condition)
    return compare(raw, found, condition) == 1
  end,
  gte = function(raw, found, condition)
    return (compare(raw, found, condition) or -1) >= 0
  end,
  exists = function(_, found, condition)
    return (found ~= nil) == condition.wanted
  end,
  prefix = function(_, found, condition)
    local start = condition.operand.value
    return type(found) == 'string' and string.sub(found, 1, #start) == start
  end,
}
TESTS['in'] = equal

local function test(raw, condition, decoded)
  local found = nil
  if raw then
    found = actual(raw, condition, decoded)
  end
  return TESTS[condition.test](raw, found, condition)
end

-- Whether all conditions hold for the item kept at `id`, and the work that it took to say so: about 3 us each.
function where.holds(id, sort, conditions)
  if #conditions == 0 then
    return true, 0
  end
  local raws = redis.pcall('HMGET', id, unpack(names_of(conditions)))
  if raws.err then
    return false, 1
  end
  local work, decoded = 0.5, {}
  for i, condition in ipairs(conditions) do
    local raw = raws[i]
    work = work + 0.5 + (raw and value.cost(raw) or 0)
    if not test(condition.sort and sort or raw, condition, decoded) then
      return false, work
    end
  end
  return true, work
end

-- Whether all conditions hold for an item of these fields and this sortField. Who asks several lists of one item gives them
-- one table of what is `decoded`.
function where.matches(fields, sort, conditions, decoded)
  decoded = decoded or {}
  for _, condition in ipairs(conditions) do
    if not test(condition.sort and sort or fields[condition.field], condition, decoded) then
      return false
    end
  end
  return true
end
