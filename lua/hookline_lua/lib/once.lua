-- Operations that bring an id of their own: what the first of an id answered is kept for who repeats it. Only an effect
-- is kept; what was refused wrote nothing, and may be tried again.
-- use: outcome item kept

-- `made` are the records that this call has read or will write, by their ids: operations of one call see each other.
-- A record is { body, fields shown | false, extra | false, sortField | false }.
local once = {}

function once.reset()
  once.made, once.fresh, once.keep_least = {}, {}, request[1]
end

local BODY, SHOWN, EXTRA, SORT = 1, 2, 3, 4

-- Contents of claimed items are not kept a second time: they are read again, and what was deleted since is left out.
local function read_contents(key, extra)
  local items, gone = {}, 0
  for _, taken in ipairs(extra.items) do
    local content = redis.pcall('HGET', item.prefix .. key .. ':' .. taken[1], 'c')
    if type(content) == 'string' then
      local shown = { c = content }
      for field, value in pairs(taken[2]) do
        shown[field] = value
      end
      items[#items + 1] = { taken[1], shown }
    else
      gone = gone + 1
    end
  end
  extra.items, extra.gone = items, gone > 0 and gone or nil
end

-- The answer that the operation has had already; nil where it has had none.
function once.recall(operation)
  local mark = operation.once
  local record = once.made[mark.id]
  if not record then
    record = kept.read(mark.id)
    if not record then
      return record == false and { outcome.corrupt, false, false } or nil
    end
    once.made[mark.id] = record
  end
  if record[BODY] ~= mark.body then
    return { outcome.idempotency_key_reused, false, false }
  end
  local extra = { replayed = true, sort = record[SORT] or nil }
  for name, value in pairs(record[EXTRA] or {}) do
    extra[name] = value
  end
  if extra.items then
    read_contents(operation.key, extra)
  end
  return { outcome.ok, record[SHOWN], extra }
end

-- Fields come by name or one after the other.
local function without_content(fields)
  local lean = {}
  if fields[1] then
    for i = 1, #fields, 2 do
      lean[fields[i]] = fields[i] ~= 'c' and fields[i + 1] or nil
    end
    return lean
  end
  for field, value in pairs(fields) do
    lean[field] = field ~= 'c' and value or nil
  end
  return lean
end

local function without_contents(items)
  local lean = {}
  for place, taken in ipairs(items) do
    lean[place] = { taken[1], without_content(taken[2]) }
  end
  return lean
end

-- Note what an operation has answered. `mark.lean`: nothing is kept of the item, which is gone; `mark.whole`: all of it,
-- since who repeats the operation does not know what it sent; `mark.always`: also that a claim has found nothing.
function once.note(operation, answer, show)
  local mark, shown, extra = operation.once, answer[2], answer[3]
  if answer[1] ~= outcome.ok or (extra and extra.items and #extra.items == 0 and not mark.always) then
    return
  end
  if extra and extra.items then
    local lean = {}
    for name, value in pairs(extra) do
      lean[name] = value
    end
    lean.items = without_contents(extra.items)
    extra = lean
  end
  if mark.whole then
    shown = show(item.load(operation.key, operation.sort), { nonce = operation.nonce })
  end
  once.made[mark.id] = { mark.body, not mark.lean and shown, extra, mark.named and operation.sort or false }
  once.fresh[#once.fresh + 1] = mark
end

-- What an operation of a call answered that is asked for again: as it stands in the record, be it a first answer or one that
-- was given again. Nil where there is no such record.
function once.again(operation, answer)
  local again = answer[1] == outcome.ok and not operation.once.lean and once.recall(operation)
  if not again or again[1] ~= outcome.ok then
    return nil
  end
  if not (answer[3] and answer[3].replayed) then
    again[3].replayed, again[3].sort = nil, nil
  end
  return again
end

function once.flush()
  for _, mark in ipairs(once.fresh) do
    kept.write(mark.id, once.made[mark.id], math.max(mark.keep_ms, once.keep_least))
  end
end
