#!lua flags=allow-cross-slot-keys,no-writes
-- Read items: one by its name, or a page of a key in the order of one of its sets, within a budget of work; and count. A
-- page and a count are of all `places` that are named: each a partition of this node, and the entry to go on behind.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock settings index declared where range text

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

-- Go to another partition of this node; it fails where another node has it.
local function enter(tag)
  if partition ~= tag then
    partition = tag
    redis.call('EXISTS', tag)
    settings.reset()
    declared.reset()
  end
end

-- One item, of the partition with this `tag` if one is named; nothing of it where it does not meet the filters, or when this
-- call has given so much that it must be asked for `again`.
function find.get(operation)
  enter(operation.tag or partition)
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

-- Why the set of a walk can't be read in this partition as the caller planned, as an answer; or nil. What the caller knows may be
-- newer than this partition, if a change of settings is under way.
local function obstacle_here(operation)
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

-- The walk of one place. `score` and `member` are those of the first entry that is still to come; at the end there is none.
local function begin(operation, place, page)
  enter(place[1])
  operation.after = place[2] or nil
  local name = index.name(operation.key, operation.label)
  local parts, entries = range.parts(name, operation), nil
  local walk = { tag = partition, behind = operation.after }
  function walk.step()
    walk.score, walk.member = nil, nil
    while not walk.member do
      if entries then
        walk.score, walk.member = entries()
      end
      if not walk.member then
        local first, last = parts()
        if not first then
          return
        end
        entries = range.entries(name, first, last, operation.descending, page)
      end
    end
  end
  walk.step()
  return walk
end

local function comes_first(walk, other, descending)
  if descending then
    walk, other = other, walk
  end
  if walk.score ~= other.score then
    return tonumber(walk.score) < tonumber(other.score)
  end
  return text.precedes(walk.member, other.member)
end

-- Put a walk in line, unless it is at its end: the last in line is the one whose entry comes first.
local function line_up(line, walk, descending)
  if not walk.member then
    return
  end
  local place, behind = 1, #line + 1
  while place < behind do
    local middle = math.floor((place + behind) / 2)
    if comes_first(walk, line[middle], descending) then
      place = middle + 1
    else
      behind = middle
    end
  end
  table.insert(line, place, walk)
end

-- Walk the entries of all places in the order asked for, and have each item that meets the filters taken by
-- `take(place, sort, walk, id)`, which answers with the work that it did: up to `limit` of them, as far as the budget
-- reaches. Returns how many were looked at; if not all were, the last of them; and where each place ends: false where it has
-- no more, true where it is where it was.
local function walk_all(operation, take)
  local places, limit = operation.places, operation.limit or 1 / 0
  local page = limit < 1 / 0 and math.min(100, math.ceil(2 * limit / #places)) or nil
  local line, walks = {}, {}
  for place, each in ipairs(places) do
    local walk = begin(operation, each, page)
    walk.place, walks[place] = place, walk
    line_up(line, walk, operation.descending)
  end
  local conditions = operation.exact and {} or operation.where -- what the ends of the walk say already
  local budget, examined, taken, last = operation.budget, 0, 0, nil
  while #line > 0 and budget > 0 and taken < limit and not (last and clock.late()) do
    local walk = table.remove(line)
    local sort = declared.sort_of(walk.member)
    local id = walk.tag .. ':i:' .. operation.key .. ':' .. sort
    local held, work = where.holds(id, sort, conditions)
    if held then
      taken = taken + 1
      work = work + take(walk, sort, id)
    end
    budget, examined = budget - math.max(work, LEAST_WORK), examined + 1
    last = { walk.score, walk.member }
    walk.behind, walk.moved = last, true
    walk.step()
    line_up(line, walk, operation.descending)
  end
  local ends = {}
  for place, walk in ipairs(walks) do
    ends[place] = walk.member and (walk.moved and walk.behind or true) or false
  end
  return examined, #line > 0 and last, ends
end

-- A page. The budget is counted in entries of about 3 us: an item shown costs two and one for each 4 KiB of it, so that a
-- page stays below 4 MiB.
function find.query(operation)
  local items = {}
  local examined, after, ends = walk_all(operation, function(walk, sort, id)
    local fields, bytes = read(id)
    if not fields then
      return 2
    end
    local member = walk.member ~= sort and walk.member or false
    items[#items + 1] = { sort, fields, walk.score, member, bytes, walk.place }
    return 2 + bytes / 4096
  end)
  return { outcome.ok, false, { items = items, after = after or false, examined = examined, ends = ends } }
end

-- How many entries the walks of all places would have before them.
local function size_of(operation)
  local sum = 0
  for _, place in ipairs(operation.places) do
    enter(place[1])
    operation.after = place[2] or nil
    sum = sum + range.size(index.name(operation.key, operation.label), operation)
  end
  return sum
end

-- How many match: where the range says all that the filters do, by its ends alone.
function find.count(operation)
  if operation.exact then
    return { outcome.ok, false, { count = size_of(operation), examined = 0 } }
  end
  local count = 0
  local examined, after, ends = walk_all(operation, function()
    count = count + 1
    return 0
  end)
  return { outcome.ok, false, { count = count, after = after or false, examined = examined, ends = ends } }
end

function find.size(operation)
  return { outcome.ok, false, { size = size_of(operation) } }
end

-- Why one of the places can't be read as the caller planned, as an answer; or nil.
local function obstacle(operation)
  for _, place in ipairs(operation.places) do
    enter(place[1])
    local found = obstacle_here(operation)
    if found then
      return found
    end
  end
end

return function()
  find.bytes = 4194304
  local home, outcomes = partition, {}
  for place, operation in ipairs(request) do
    enter(home)
    operation.places = operation.places or { { home, operation.after or false } }
    outcomes[place] = operation.label and obstacle(operation) or find[operation.verb](operation)
  end
  return cmsgpack.pack(outcomes)
end
