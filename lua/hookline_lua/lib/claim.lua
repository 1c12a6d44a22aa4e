-- Claims: up to `limit` items of one key to one worker, within a budget of entries examined.
-- use: outcome clock settings index item lock outbox call where

local claim = { promoted_max = 100, bytes_max = 4194304, taken = {} }

local function at_most(name, max_text, offset, count)
  return redis.call('ZRANGEBYSCORE', name, '-inf', max_text, 'LIMIT', offset, count)
end

-- Bring the sets up to what this call has changed; who was taken is no longer in line then.
function claim.flush()
  item.flush()
  claim.taken = {}
end

-- Due items join the line: a new version, no event. Returns whether more are due than one call promotes.
local function promote(key)
  local due = at_most(index.name(key, 'scheduled'), clock.text(clock.ms), 0, claim.promoted_max)
  local promoted = false
  for _, sort in ipairs(due) do
    local record = item.load(key, sort)
    if record.exists and record.fields.s == 'scheduled' and tonumber(record.fields.at) <= clock.ms then
      item.open(record)
      item.set(record, 's', 'not_started')
      lock.advance(record)
      promoted = item.close(record) or promoted
    end
  end
  if promoted then
    claim.flush()
  end
  return #due == claim.promoted_max
end

-- Give one item to the worker; nil where an index is in the way.
local function take(record, operation)
  item.open(record)
  item.set(record, 'w', operation.worker)
  item.set(record, 'sa', clock.text(clock.ms))
  item.set(record, 'lu', clock.text(clock.ms + (operation.lock_ms or settings.number(record.key, 'lock_ms'))))
  lock.take(record, operation.nonce)
  if call.commit(record, operation, 'updated', record.fields.tk) then
    return nil
  end
  return { record.sort, call.show(record, operation) }
end

local function wanted(key, sort, operation)
  if operation.where and #operation.where > 0 and not where.holds(partition .. ':i:' .. key .. ':' .. sort, operation.where) then
    return nil
  end
  local record = item.load(key, sort)
  return record.exists and record or nil
end

local function bury(record)
  lock.count(record.key, 'expired_locks')
  item.open(record)
  lock.bury(record)
  item.close(record)
end

local function claim_expired(operation, state)
  local name, offset = index.name(operation.key, 'started'), 0
  while state.room > 0 and state.budget > 0 do
    local sorts = at_most(name, clock.text(clock.ms), offset, math.min(state.budget, 100))
    for _, sort in ipairs(sorts) do
      if state.room <= 0 then
        return
      end
      state.budget = state.budget - 1
      local record = wanted(operation.key, sort, operation)
      if record and record.fields.s == 'started' and not lock.live(record.fields) then
        if lock.exhausted(record) then
          bury(record)
        else
          lock.count(operation.key, 'expired_locks')
          claim.give(record, operation, state)
        end
      end
    end
    if #sorts < 100 then
      return
    end
    offset = offset + #sorts
  end
end

function claim.give(record, operation, state)
  local shown = take(record, operation)
  if shown then
    state.room = state.room - 1
    state.bytes = state.bytes - #(record.fields.c or '')
    if state.bytes <= 0 and state.room > 0 then
      state.room, state.more = 0, true
    end
    table.insert(state.items, shown)
  end
end

-- In line order. Claims of one call see each other: what one took, the next skips by the remembered place.
local function claim_waiting(operation, state)
  local name = index.name(operation.key, 'not_started')
  local filtered = operation.where and #operation.where > 0
  local place = filtered and 0 or claim.taken[name] or 0
  while state.room > 0 and state.budget > 0 do
    local count = math.min(state.budget, filtered and 100 or state.room)
    local sorts = redis.call('ZRANGE', name, place, place + count - 1)
    for _, sort in ipairs(sorts) do
      if state.room <= 0 then
        break
      end
      state.budget, place = state.budget - 1, place + 1
      local record = wanted(operation.key, sort, operation)
      if record and record.fields.s == 'not_started' then
        claim.give(record, operation, state)
      end
    end
    if #sorts < count then
      break
    end
  end
  if not filtered then
    claim.taken[name] = place
  end
end

local function first_score(name, min)
  return tonumber(redis.call('ZRANGEBYSCORE', name, min, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
end

-- When there may be something to claim again: the earliest due time or lock expiry, or nil.
local function next_ms(key)
  local due = first_score(index.name(key, 'scheduled'), '-inf')
  local expiry = first_score(index.name(key, 'started'), '(' .. clock.text(clock.ms))
  if due and expiry then
    return math.min(due, expiry)
  end
  return due or expiry
end

-- A limit of 0 only promotes and buries.
function claim.run(operation)
  for _, status in ipairs({ 'scheduled', 'started', 'not_started', 'failed' }) do
    if not index.sound(operation.key, status) then
      return { outcome.corrupt, false, false }
    end
  end
  local state = {
    room = operation.limit > 0 and operation.limit or 1,
    budget = operation.budget or 1000,
    bytes = claim.bytes_max,
    items = {},
    more = promote(operation.key),
  }
  if operation.limit == 0 then
    claim.tidy(operation, state)
  else
    claim_expired(operation, state)
    claim_waiting(operation, state)
  end
  local extra = { items = state.items, more = state.more or state.budget <= 0 }
  if #state.items < operation.limit then
    extra.next_ms = next_ms(operation.key)
  end
  return { outcome.ok, false, extra }
end

-- Bury the exhausted among the expired without claiming the others.
function claim.tidy(operation, state)
  for _, sort in ipairs(at_most(index.name(operation.key, 'started'), clock.text(clock.ms), 0, state.budget)) do
    local record = item.load(operation.key, sort)
    if record.exists and record.fields.s == 'started' and not lock.live(record.fields) and lock.exhausted(record) then
      bury(record)
    end
  end
end
