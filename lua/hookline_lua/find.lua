#!lua flags=no-writes
-- Read items: one by its name, or a page of a key in the order of an index, within a budget of work.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock index where

local find = { bytes = 4194304 }

-- The fields of an item, and how many bytes they are; or the word that says why there are none.
local function read(id)
  local flat = redis.pcall('HGETALL', id)
  if flat.err then
    return nil, outcome.corrupt
  elseif #flat == 0 then
    return nil, outcome.not_found
  end
  local fields, bytes = {}, 0
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
    bytes = bytes + #flat[i] + #flat[i + 1]
  end
  fields.tk = nil
  return fields, bytes
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
  elseif operation.where and not where.matches(fields, operation.where) then
    return { outcome.ok, false, false }
  end
  find.bytes = find.bytes - bytes
  return { outcome.ok, fields, false }
end

-- The rank to begin at: behind the entry where the last page ended, even if that has moved since.
local function first_rank(name, operation)
  local after = operation.after
  if after then
    return index.rank_after(name, after[1], after[2], operation.descending)
  elseif operation.min and not operation.descending then
    return redis.call('ZCOUNT', name, '-inf', '(' .. clock.resolve(operation.min))
  end
  return 0
end

local function entries(name, rank, descending)
  if descending then
    return redis.call('ZRANGE', name, rank, rank + 99, 'REV', 'WITHSCORES')
  end
  return redis.call('ZRANGE', name, rank, rank + 99, 'WITHSCORES')
end

-- The budget is counted in entries of about 3 us: an item shown costs two and one for each 4 KiB of it, so that a
-- page stays below 4 MiB.
function find.query(operation)
  local name = index.name(operation.key, operation.status or '')
  if not index.probe('ZCARD', name) then
    return { outcome.corrupt, false, false }
  end
  local rank = first_rank(name, operation)
  local max = operation.max and tonumber(clock.resolve(operation.max)) or math.huge
  local budget, items, examined, after = operation.budget, {}, 0, false
  while true do
    local page = entries(name, rank, operation.descending)
    for i = 1, #page, 2 do
      local member, score = page[i], page[i + 1]
      if tonumber(score) > max then
        return { outcome.ok, false, { items = items, examined = examined } }
      elseif #items >= operation.limit or budget <= 0 then
        return { outcome.ok, false, { items = items, after = after, examined = examined } }
      end
      local id = partition .. ':i:' .. operation.key .. ':' .. member
      local held, work = where.holds(id, operation.where)
      if held then
        local fields, bytes = read(id)
        if fields then
          table.insert(items, { member, fields, score })
          work = work + bytes / 4096
        end
        work = work + 2
      end
      budget, examined = budget - work, examined + 1
      after = { score, member }
    end
    if #page < 200 then
      return { outcome.ok, false, { items = items, examined = examined } }
    end
    rank = rank + 100
  end
end

local outcomes = {}
for place, operation in ipairs(request) do
  outcomes[place] = find[operation.verb](operation)
end
return cmsgpack.pack(outcomes)
