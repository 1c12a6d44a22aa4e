#!lua flags=no-writes
-- Read items: one by its name, or a page of a key in the order of an index, within a budget of entries examined.
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: outcome clock index where

local find = { bytes_max = 4194304 }

local function read(id)
  local flat = redis.pcall('HGETALL', id)
  if flat.err then
    return nil, outcome.corrupt
  elseif #flat == 0 then
    return nil, outcome.not_found
  end
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  fields.tk = nil
  return fields
end

function find.get(operation)
  local fields, word = read(partition .. ':i:' .. operation.key .. ':' .. operation.sort)
  return { word or outcome.ok, fields or false, false }
end

-- The rank to go on from after the entry where the last page ended; and, where that entry has moved since,
-- the score whose members up to the ended one are still to be skipped.
local function resume(name, operation)
  local after = operation.after
  local descending = operation.descending
  if not after then
    if operation.min and not descending then
      return redis.call('ZCOUNT', name, '-inf', '(' .. clock.resolve(operation.min))
    end
    return 0
  end
  local score, member = after[1], after[2]
  if tonumber(redis.call('ZSCORE', name, member) or 'nan') == tonumber(score) then
    return redis.call(descending and 'ZREVRANK' or 'ZRANK', name, member) + 1
  end
  if descending then
    return redis.call('ZCOUNT', name, '(' .. score, '+inf'), tonumber(score)
  end
  return redis.call('ZCOUNT', name, '-inf', '(' .. score), tonumber(score)
end

local function entries(name, rank, descending)
  if descending then
    return redis.call('ZRANGE', name, rank, rank + 99, 'REV', 'WITHSCORES')
  end
  return redis.call('ZRANGE', name, rank, rank + 99, 'WITHSCORES')
end

local function passed(operation, skip_score, score, member)
  if skip_score ~= score then
    return false
  elseif operation.descending then
    return member >= operation.after[2]
  end
  return member <= operation.after[2]
end

function find.query(operation)
  local name = index.name(operation.key, operation.status or '')
  if not index.probe('ZCARD', name) then
    return { outcome.corrupt, false, false }
  end
  local rank, skip_score = resume(name, operation)
  local max = operation.max and tonumber(clock.resolve(operation.max))
  local budget, bytes, items, after = operation.budget, find.bytes_max, {}, false
  while true do
    local page = entries(name, rank, operation.descending)
    for i = 1, #page, 2 do
      local member, score = page[i], tonumber(page[i + 1])
      if max and score > max then
        return { outcome.ok, false, { items = items, examined = operation.budget - budget } }
      elseif #items >= operation.limit or budget <= 0 or bytes <= 0 then
        return { outcome.ok, false, { items = items, after = after, examined = operation.budget - budget } }
      end
      if not passed(operation, skip_score, score, member) then
        budget = budget - 1
        local id = partition .. ':i:' .. operation.key .. ':' .. member
        if #operation.where == 0 or where.holds(id, operation.where) then
          local fields = read(id)
          if fields then
            bytes = bytes - #fields.c
            table.insert(items, { member, fields, page[i + 1] })
          end
        end
        after = { page[i + 1], member }
      end
    end
    if #page < 200 then
      return { outcome.ok, false, { items = items, examined = operation.budget - budget } }
    end
    rank = rank + 100
  end
end

local outcomes = {}
for place, operation in ipairs(request) do
  outcomes[place] = find[operation.verb](operation)
end
return cmsgpack.pack(outcomes)
