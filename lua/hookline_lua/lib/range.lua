-- Ranges of a sorted set as a request names them, turned into ranks. `all` has ranges of which each must hold, `any` (if
-- there) ranges of which one must; a range is a pair of bounds as ZRANGE takes them, by score or (`lex`) by member.
-- A score may be a time from now on: `+600000`, `(+0`.
-- use: clock index

local range = {}

local PAGE = 100

local function resolve(bound)
  local open, score = string.match(bound, '^(%(?)(.*)$')
  return open .. clock.resolve(score)
end

local function opposite(bound, open, closed)
  if string.sub(bound, 1, 1) == open then
    return closed .. string.sub(bound, 2)
  end
  return open .. (closed == '' and bound or string.sub(bound, 2))
end

-- The ranks of a range's first entry and of the one behind its last.
local function ranks(name, operation, bounds)
  local least, most = bounds[1], bounds[2]
  if operation.lex then
    local first = least == '-' and 0 or redis.call('ZLEXCOUNT', name, '-', opposite(least, '(', '['))
    return first, first + redis.call('ZLEXCOUNT', name, least, most)
  end
  least, most = resolve(least), resolve(most)
  local first = least == '-inf' and 0 or redis.call('ZCOUNT', name, '-inf', opposite(least, '(', ''))
  return first, first + redis.call('ZCOUNT', name, least, most)
end

-- The ranges of ranks that the operation asks for: apart from each other, in order.
local function intervals(name, operation)
  local from, upto = 0, redis.call('ZCARD', name)
  local after = operation.after
  if after and operation.descending then
    upto = index.rank(name, after[1], after[2], true)
  elseif after then
    from = index.rank(name, after[1], after[2])
  end
  for _, bounds in ipairs(operation.all or {}) do
    local first, last = ranks(name, operation, bounds)
    from, upto = math.max(from, first), math.min(upto, last)
  end
  if not operation.any then
    return { { from, upto } }
  end
  local found, apart = {}, {}
  for _, bounds in ipairs(operation.any) do
    local first, last = ranks(name, operation, bounds)
    table.insert(found, { math.max(from, first), math.min(upto, last) })
  end
  table.sort(found, function(one, other)
    return one[1] < other[1]
  end)
  for _, each in ipairs(found) do
    local before = apart[#apart]
    if before and each[1] < before[2] then
      before[2] = math.max(before[2], each[2])
    elseif each[1] < each[2] then
      table.insert(apart, each)
    end
  end
  return apart
end

-- Iterate over those ranges in the direction asked for -> first and last rank, the last excluded.
function range.parts(name, operation)
  local found = intervals(name, operation)
  local place, step = 0, 1
  if operation.descending then
    place, step = #found + 1, -1
  end
  return function()
    place = place + step
    if found[place] then
      return found[place][1], found[place][2]
    end
  end
end

-- Iterate over the entries between two ranks -> score, member. Who needs few says how many are read at once, `most` at first.
function range.entries(name, first, last, descending, most)
  local page, place, most = {}, 1, most or PAGE
  return function()
    if place > #page then
      if first >= last then
        return nil
      end
      local count = math.min(most, last - first)
      most = PAGE
      if descending then
        local card = redis.call('ZCARD', name)
        page = redis.call('ZRANGE', name, card - last, card - last + count - 1, 'REV', 'WITHSCORES')
        last = last - count
      else
        page = redis.call('ZRANGE', name, first, first + count - 1, 'WITHSCORES')
        first = first + count
      end
      place = 1
    end
    place = place + 2
    return page[place - 1], page[place - 2]
  end
end

function range.size(name, operation)
  local sum = 0
  for first, last in range.parts(name, operation) do
    sum = sum + math.max(0, last - first)
  end
  return sum
end
