-- The frame of a call that writes: replay, operations one by one, then the writes, then the answer.
-- use: outcome clock settings item index lock outbox wake once

-- `states` are those of new items by the place of their operation: what is shown of them is all that a replay needs.
local call = { states = {} }

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
  if not (token and nonce and string.sub(token, -16) == lock.mark(record, nonce)) then
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

-- End an operation: check its indexes, note its event, or undo it.
function call.commit(record, operation, event, token)
  local refusal = (not item.close(record) and outcome.corrupt) or outbox.add(record, event, operation, token)
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

-- A lost answer is asked for again under the same call id: the words were kept, the items are read anew.
local function replay(kept)
  local outcomes = cmsgpack.unpack(kept)
  for place, operation in ipairs(request[3]) do
    local answer = outcomes[place]
    local state = table.remove(answer, 4)
    if answer.once ~= nil then
      outcomes[place] = once.again(operation, answer.once)
    elseif state then
      show_again(answer, operation, state)
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

-- Of an item that a replay can read anew only the state is kept; one that was deleted is kept whole. What is kept by the
-- operation's own id is not kept by that of the call as well.
local function to_keep(operation, answer, state)
  local word, shown, extra = answer[1], answer[2], answer[3]
  if once.keeps(operation, answer) then
    return { once = extra and extra.replayed or false }
  elseif state then
    shown = false
  elseif shown and not (operation.verb and word == outcome.ok) then
    if item.load(operation.key, operation.sort).exists then
      shown, state = false, state_of(shown)
    end
  end
  if extra and extra.items then
    local items = extra.items
    extra = { sorts = {}, next_ms = extra.next_ms, more = extra.more, after = extra.after, examined = extra.examined }
    for i, taken in ipairs(items) do
      extra.sorts[i] = taken[1]
    end
  end
  return { word, shown, extra, state }
end

local function keep(id, outcomes)
  local kept = {}
  for place, answer in ipairs(outcomes) do
    kept[place] = to_keep(request[3][place], answer, call.states[place])
  end
  redis.call('SET', id, cmsgpack.pack(kept), 'PX', request[1])
end

function call.run(handle)
  local id = partition .. ':o:' .. call_id
  local kept = redis.call('GET', id)
  if kept then
    return replay(kept)
  end
  local outcomes = {}
  for place, operation in ipairs(request[3]) do
    local before = operation.once and once.recall(operation)
    if before then
      outcomes[place] = before
    elseif operation.recall then
      outcomes[place] = { outcome.not_found, false, false }
    elseif not settings.of(operation.key) then
      outcomes[place] = { outcome.corrupt, false, false }
    elseif settings.changed(operation) then
      outcomes[place] = { outcome.settings_changed, false, { settings = settings.of(operation.key) } }
    else
      outcomes[place] = handle(operation, place)
      if operation.once then
        once.note(operation, outcomes[place], call.show)
      end
    end
  end
  item.flush()
  local fired = outbox.flush()
  lock.flush()
  once.flush()
  keep(id, outcomes)
  wake.ready(index.ready)
  wake.changed(item.changed)
  if fired then
    wake.say('outbox')
  end
  return cmsgpack.pack(outcomes)
end
