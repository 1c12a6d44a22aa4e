-- Claims: up to `limit` items of one key to one worker: those whose lock has expired, then those in line.
-- use: outcome clock text settings index item lock outbox call where due

-- What all claims of one call may do together: work in filters and burials (an entry is about 3 us), bytes shown, and
-- promotions. `places` is how far each kind of claim has come in each set, `promoted` the keys already looked at.
local claim = { work = 1000, bytes = 4194304, promotions = 100, left = 0, places = {}, furthest = {}, promoted = {} }

-- However much the claims before it took, each may look at a few entries: else one heavy filter would starve the rest.
local LEAST_WORK = 10

local PHASES = { started = 1, not_started = 2 }

local function further(one, other)
  if one[1] ~= other[1] then
    return PHASES[one[1]] > PHASES[other[1]]
  elseif one[2] ~= other[2] then
    return tonumber(one[2]) > tonumber(other[2])
  end
  return text.compare(one[3], other[3]) > 0
end

-- Claims of one kind (key and filters) share how far they have come: also those that go on from an earlier call, all
-- from the furthest place that one of them has reached, since what lies before it was looked at by one of them.
for _, operation in ipairs(request[3]) do
  if operation.verb == 'claim' then
    claim.left = claim.left + 1
    operation.where = operation.where or {}
    operation.kind = operation.key .. ' ' .. cmsgpack.pack(operation.where) .. (operation.after and ' on' or '')
    local reached = claim.furthest[operation.kind]
    if operation.after and (not reached or further(operation.after, reached)) then
      claim.furthest[operation.kind] = operation.after
    end
  end
end

local BURIAL = 10

-- Bring the sets up to what this call has changed; who was taken is no longer in line then.
function claim.flush()
  item.flush()
  claim.places = {}
end

-- Once a call and key. Returns whether more is due.
local function promote(key)
  if claim.promoted[key] == nil then
    local most = claim.promotions
    local looked_at = due.promote(key, most)
    if looked_at > 0 then
      claim.flush()
    end
    claim.promotions, claim.promoted[key] = most - looked_at, looked_at == most
  end
  return claim.promoted[key]
end

-- Give one item to the worker, or note the refusal that ends this claim.
local function give(record, operation, state)
  local expired = record.fields.s == 'started'
  item.open(record)
  if expired then
    lock.tally(record, 'cr')
  end
  item.set(record, 'w', operation.worker)
  item.set(record, 'sa', clock.text(clock.ms))
  item.set(record, 'lu', clock.text(clock.ms + (operation.lock_ms or settings.number(record.key, 'lock_ms'))))
  lock.take(record, operation.nonce)
  local refused = call.commit(record, operation, 'updated', record.fields.tk)
  if refused then
    state.refusal = refused[1]
    return
  end
  if expired then
    lock.count(record.key, 'expired_locks')
  end
  local shown = call.show(record, operation)
  for field, value in pairs(shown) do
    claim.bytes = claim.bytes - #field - #value
  end
  state.until_ms = math.min(state.until_ms, tonumber(record.fields.lu))
  table.insert(state.items, { record.sort, shown })
end

-- One entry of a set: given, buried, or passed over.
local function visit(status, sort, operation, state)
  local held, work = where.holds(partition .. ':i:' .. operation.key .. ':' .. sort, operation.where)
  state.work = state.work - work
  if not held then
    return
  end
  local record = item.load(operation.key, sort)
  if not record.exists or record.fields.s ~= status or lock.live(record.fields) then
    state.work = state.work - 1
  elseif status == 'started' and lock.exhausted(record) then
    state.work = state.work - BURIAL
    due.bury(record)
  else
    give(record, operation, state)
  end
end

-- Claims of one call see each other: what one has passed, the next of its kind skips.
local function first_rank(name, status, operation)
  local place, reached = claim.places[status .. operation.kind], claim.furthest[operation.kind]
  if place then
    return place
  end
  return reached and reached[1] == status and index.rank_after(name, reached[2], reached[3]) or 0
end

local function goes_on(operation, state)
  return #state.items < operation.limit and not state.refusal and state.work > 0 and claim.bytes > 0
end

-- Visit the entries of a status up to a score, while the claim goes on. Returns whether to the end.
local function walk(status, latest, operation, state)
  local name = index.name(operation.key, status)
  local rank, ended = first_rank(name, status, operation), false
  while not ended and goes_on(operation, state) do
    local count = #operation.where > 0 and 100 or math.min(100, operation.limit - #state.items)
    local page = redis.call('ZRANGE', name, rank, rank + count - 1, 'WITHSCORES')
    ended = #page < 2 * count
    for i = 1, #page, 2 do
      if tonumber(page[i + 1]) > latest then
        ended = true
        break
      elseif not goes_on(operation, state) then
        ended = false
        break
      end
      visit(status, page[i], operation, state)
      if not state.refusal then
        rank, state.after = rank + 1, { status, page[i + 1], page[i] }
      end
    end
  end
  claim.places[status .. operation.kind] = rank
  return ended
end

-- What is left of the call's work is shared evenly among the claims still to come.
local function take(operation, state)
  local share = math.max(LEAST_WORK, claim.work / claim.left)
  state.work = share
  local reached = claim.furthest[operation.kind]
  local ended = (reached and reached[1] == 'not_started') or walk('started', clock.ms, operation, state)
  ended = ended and walk('not_started', math.huge, operation, state)
  claim.work, claim.left = claim.work - (share - state.work), claim.left - 1
  return ended
end

-- When there may be more for a claim that got less than it asked for.
local function next_ms(operation, state)
  local next_due = due.next_ms(operation.key) or math.huge
  local first = math.min(next_due, state.until_ms)
  return first < math.huge and first or nil
end

function claim.run(operation)
  for _, status in ipairs({ 'scheduled', 'started', 'not_started', 'failed' }) do
    if not index.sound(operation.key, status) then
      return { outcome.corrupt, false, false }
    end
  end
  if settings.of(operation.key).paused then
    return { outcome.ok, false, { items = {} } }
  end
  local state = { items = {}, after = operation.after, until_ms = math.huge }
  local promotable = promote(operation.key)
  local ended = take(operation, state)
  if state.refusal and #state.items == 0 then
    return { state.refusal, false, false }
  end
  local full = #state.items == operation.limit
  local extra = { items = state.items }
  if not full and not state.refusal then
    extra.more = promotable or not ended
    extra.next_ms = next_ms(operation, state)
  end
  if not ended and (not full or #operation.where > 0) then
    extra.after = state.after
  end
  return { outcome.ok, false, extra }
end
