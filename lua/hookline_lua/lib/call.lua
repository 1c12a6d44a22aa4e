-- The frame of a call that writes: replay, operations one by one, then the writes, then the answer.
-- use: outcome settings item index lock outbox wake once

-- An outcome is `{ word, shown, extra, state }`. The state is what a replay needs to show an item anew: true where that is
-- no more than what is shown.
local call = {}

function call.reset()
  call.marked = false
end

-- Creates that are alike come as rows, `{ shared, flat }`: what is the same of all, and of each its sortField and its
-- fields, `width` values. Here they become operations as all others are.
local function each_of(rows)
  local operations, shared, flat = {}, rows[1], rows[2]
  for first = 1, #flat, shared.width do
    local set, last = {}, first + shared.width - 1
    for i = first + 1, last, 2 do
      set[flat[i]] = flat[i + 1]
    end
    local operation = { sort = flat[first], set = set, flat = { unpack(flat, first, last) } }
    for name, value in pairs(shared) do
      operation[name] = value
    end
    operations[#operations + 1] = operation
  end
  return operations
end

-- All operations of the call, one by one.
local function operations()
  local all = {}
  for _, operation in ipairs(request[3]) do
    for _, each in ipairs(operation[1] and each_of(operation) or { operation }) do
      all[#all + 1] = each
    end
  end
  return all
end

-- Fields of an item for the caller: without what it sent itself, `false` for what it sent and did not stay.
-- The token goes only to the call that made the claim, known by its nonce.
function call.show(record, operation)
  if not record.exists then
    return false
  end
  local sent, shown = operation.set or {}, {}
  for field, value in pairs(record.fields) do
    if sent[field] ~= value then
      shown[field] = value
    end
  end
  for field in pairs(sent) do
    if not record.fields[field] then
      shown[field] = false
    end
  end
  local token, nonce = record.fields.tk, operation.nonce
  if not (token and nonce and lock.marked(token, nonce)) then
    shown.tk = nil
  end
  return shown
end

local STATE = { 'v', 's', 'lu', 'ca', 'ua', 'at', 'a', 'sd', 'sa', 'da' }

local function state_of(fields)
  local state = {}
  for _, field in ipairs(STATE) do
    state[field] = fields[field]
  end
  return state
end

-- What settling tells: its caller has the rest of the item.
function call.show_state(record)
  local fields = record.fields
  return { v = fields.v, s = fields.s, lu = fields.lu }
end

function call.refuse(word, record)
  if record.partial then
    item.load(record.key, record.sort)
  end
  return { word, call.show(record, {}), false }
end

-- The item of an operation, of which no more than the fields `names` are needed if there are such; or the outcome that
-- says why there is none to work on.
function call.find(operation, names)
  local key, sort = operation.key, operation.sort
  local record = names and item.peek(key, sort, names) or item.load(key, sort)
  if record.corrupt then
    return nil, { outcome.corrupt, false, false }
  elseif not record.exists then
    return nil, { outcome.not_found, false, false }
  end
  return record
end

-- End an operation: check its fields and indexes, note its event, or undo it.
function call.commit(record, operation, event, token)
  local refusal = (item.overfull(record, operation) and outcome.too_many_fields)
    or (not item.close(record) and outcome.corrupt)
    or outbox.add(record, event, operation, token)
  if refusal then
    item.undo(record)
    return call.refuse(refusal, record)
  end
  return nil
end

-- What a write answered, shown anew from the item as it stands, with the version that was made if it has moved on
-- since; if it is gone, from what was kept of it.
local function show_again(answer, operation, state)
  local record = item.load(operation.key, operation.sort)
  if answer[1] ~= outcome.ok then
    answer[2] = call.show(record, {})
    return
  elseif not record.exists then
    state.c = operation.set.c or '\192'
    answer[2] = state
    return
  end
  answer[2] = call.show(record, operation)
  if record.fields.v ~= state.v then
    answer[3] = answer[3] or {}
    answer[3].version = state.v
  end
end

local function unpacked(kept)
  local outcomes = cmsgpack.unpack(kept)
  if not outcomes.count then
    return outcomes
  end
  local all = {}
  for place = 1, outcomes.count do
    all[place] = cmsgpack.unpack(outcomes.each)
  end
  for _, other in ipairs(outcomes.rest) do
    all[#all + 1] = other
  end
  return all
end

-- A lost answer is asked for again under the same call id: the words were kept, the items are read anew.
local function replay(kept)
  local outcomes = unpacked(kept)
  for place, operation in ipairs(operations()) do
    local answer = outcomes[place]
    local state = table.remove(answer, 4)
    local again = operation.once and once.again(operation, answer)
    if again then
      outcomes[place] = again
    elseif state then
      show_again(answer, operation, state == true and answer[2] or state)
    elseif answer[3] and answer[3].sorts then
      answer[3].items = {}
      for _, sort in ipairs(answer[3].sorts) do
        local shown = call.show(item.load(operation.key, sort), operation)
        if shown and shown.tk then
          table.insert(answer[3].items, { sort, shown })
        end
      end
      answer[3].sorts = nil
    end
  end
  return cmsgpack.pack(outcomes)
end

-- An outcome without what a replay can read anew: of an item the state is kept, and one that was deleted whole. Nil where
-- there is no such thing.
local function lightened(operation, answer)
  local word, shown, extra, state = answer[1], answer[2], answer[3], answer[4]
  if extra and extra.items then
    local kept = { sorts = {}, next_ms = extra.next_ms, more = extra.more, after = extra.after, examined = extra.examined }
    kept.replayed, kept.expired, kept.buried, kept.lost = extra.replayed, extra.expired, extra.buried, extra.lost
    kept.paused, kept.held, kept.barred = extra.paused, extra.held, extra.barred
    for i, taken in ipairs(extra.items) do
      kept.sorts[i] = taken[1]
    end
    return { word, shown, kept }
  elseif shown and not state and not (operation.verb and word == outcome.ok) then
    if item.load(operation.key, operation.sort).exists then
      return { word, false, extra, state_of(shown) }
    end
  end
  return nil
end

-- The outcomes behind so many, as they are kept for a replay; and whether one of them differs from what it was.
local function lightened_behind(outcomes, same)
  local kept, differs = { unpack(outcomes, same + 1) }, false
  if #kept > 0 then
    local all = operations()
    for place, answer in ipairs(kept) do
      local light = lightened(all[same + place], answer)
      kept[place], differs = light or answer, differs or light
    end
  end
  return kept, differs
end

-- How many are one and the same from the first on: those of the short ways, of which nothing can be left out.
local function alike(outcomes)
  local first, same = outcomes[1], 1
  while first and outcomes[same + 1] == first do
    same = same + 1
  end
  return same
end

-- The outcomes packed for the answer, and as they are kept for a replay.
local function packed(outcomes)
  local count, same = #outcomes, alike(outcomes)
  if same == 1 then
    local answer = cmsgpack.pack(outcomes)
    local kept, differs = lightened_behind(outcomes, 0)
    return answer, differs and cmsgpack.pack(kept) or answer
  end
  local head, each = '\220' .. string.char(math.floor(count / 256), count % 256), cmsgpack.pack(outcomes[1])
  local answer = head .. string.rep(each, same)
  if same < count then
    answer = answer .. cmsgpack.pack(unpack(outcomes, same + 1))
  end
  local kept = { each = each, count = same, rest = lightened_behind(outcomes, same) }
  return answer, cmsgpack.pack(kept)
end

-- The outcome of an operation that was planned by other settings than its key has, or of a key whose settings are of a
-- wrong type; else nil.
local function settings_refusal(operation)
  local known = settings.of(operation.key)
  if not known then
    return { outcome.corrupt, false, false }
  elseif settings.changed(operation) then
    return { outcome.settings_changed, false, { settings = known } }
  end
  return nil
end

-- The outcome of an operation that brings an id of its own, so that it may have come before.
local function do_once(operation, place, handle)
  call.marked = true
  local answer = once.recall(operation)
  if not answer and operation.recall then
    return { outcome.not_found, false, false }
  elseif not answer then
    answer = settings_refusal(operation) or handle(operation, place)
    once.note(operation, answer, call.show)
  end
  return answer
end

-- Run the operations in turn -> their outcomes.
local function run_all(handle, short)
  local outcomes, key, generation = {}, nil, nil
  local function run_one(operation, place)
    return operation.flat and short(operation, operation.flat, place) or handle(operation, place)
  end
  local function refusal_of(operation)
    -- Most operations of a call are of one key.
    if operation.key ~= key or operation.generation ~= generation then
      local refusal = settings_refusal(operation)
      if refusal then
        return refusal
      end
      key, generation = operation.key, operation.generation
    end
    return nil
  end
  local function add_rows(rows)
    local shared, flat, place = rows[1], rows[2], #outcomes + 1
    local all = not shared.once and (refusal_of(shared) or short(shared, flat, place))
    local run = shared.once and do_once or run_one
    for n, operation in ipairs(all and {} or each_of(rows)) do
      outcomes[place + n - 1] = run(operation, place + n - 1, run_one)
    end
    for n = 1, all and #flat / shared.width or 0 do
      outcomes[place + n - 1] = all
    end
  end
  for _, operation in ipairs(request[3]) do
    local place = #outcomes + 1
    if operation[1] then
      add_rows(operation)
    elseif operation.once then
      outcomes[place] = do_once(operation, place, run_one)
    else
      outcomes[place] = refusal_of(operation) or run_one(operation, place)
    end
  end
  return outcomes
end

-- `short` makes the rows of a call in one go, or returns nil; `handle` does one operation, whatever it asks.
function call.run(handle, short)
  local id = partition .. ':o:' .. call_id
  local kept = redis.call('GET', id)
  if kept then
    return replay(kept)
  end
  local outcomes = run_all(handle, short)
  item.flush()
  local fired = outbox.flush()
  lock.flush()
  if call.marked then
    once.flush()
  end
  local answer, to_keep = packed(outcomes)
  redis.call('SET', id, to_keep, 'PX', request[1])
  wake.flush(index.ready)
  wake.changed(item.changed)
  if fired then
    wake.say('outbox')
  end
  return answer
end
