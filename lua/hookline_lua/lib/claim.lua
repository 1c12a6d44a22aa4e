-- Claims: up to `limit` items of one key to one worker: those whose lock has expired, then those in line.
-- use: outcome clock text settings index declared range item lock call where due plain flight wake

local claim = {}

-- However much the claims before it took, each may look at a few entries: else one heavy filter would starve the rest.
local LEAST_WORK = 10

-- So much does one that is to look at the front alone: many of those come one by one each second.
local FRONT_WORK = 100

-- For so long a call may give items from the line: the cost of ending it must stay small beside that.
local GIVING_SECONDS = 0.003

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
-- from the furthest place that one of them has reached, since what lies before it was looked at by one of them. A place
-- begins with the status; in a declared index it begins with the label of that.
local function join(operation)
  claim.left = claim.left + 1
  operation.where = operation.where or {}
  operation.kind = operation.key .. ' ' .. cmsgpack.pack(operation.where) .. (operation.after and ' on' or '')
  claim.of_kind[operation.kind] = (claim.of_kind[operation.kind] or 0) + 1
  local reached = claim.furthest[operation.kind]
  local after = operation.after
  if after and PHASES[after[1]] and (not reached or further(after, reached)) then
    claim.furthest[operation.kind] = operation.after
  end
end

-- What all claims of one call may do together: work in filters and burials (an entry is about 3 us), bytes shown, and
-- promotions. `places` is how far each kind of claim has come in each set, `promoted` the keys already looked at, `ends` when
-- the first lock of a key ends that this call has given or put off: of those the sets may not know yet.
function claim.reset()
  claim.work, claim.bytes, claim.promotions, claim.left = 1000, 4194304, 100, 0
  claim.places, claim.furthest, claim.promoted, claim.of_kind, claim.walks, claim.pools = {}, {}, {}, {}, {}, {}
  claim.ends = {}
  for _, operation in ipairs(request[3]) do
    if operation.verb == 'claim' then
      join(operation)
    end
  end
end

-- Bring the sets up to what this call has changed; who was taken is no longer in line then.
function claim.flush()
  item.flush()
  claim.places, claim.pools = {}, {}
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

local function note_end(key, ms)
  claim.ends[key] = clock.earlier(claim.ends[key], ms)
end

-- Give one item to the worker, or note the refusal that ends this claim.
local function give(record, operation, state)
  local expired = record.fields.s == 'started'
  item.open(record)
  if expired then
    lock.tally(record, 'cr')
  end
  item.set(record, 'w', operation.worker)
  item.set(record, 'sa', clock.now)
  item.set(record, 'lu', state.lock_end)
  lock.take(record, operation.nonce)
  local refused = call.commit(record, operation, 'updated', record.fields.tk)
  if refused then
    -- Where the item alone is corrupt it stays, and holds up nobody.
    state.refusal, state.left = not record.corrupt and refused[1] or nil, true
    return
  end
  if expired then
    lock.count(record.key, 'expired_locks')
    state.expired = (state.expired or 0) + 1
  end
  if operation.in_flight then
    flight.take(operation, record)
  end
  -- Nothing changes the item any more in this call: it is shown as it is.
  local shown = record.fields
  for field, value in pairs(shown) do
    claim.bytes = claim.bytes - #field - #value
  end
  note_end(record.key, state.lock_ms)
  table.insert(state.items, { record.sort, shown })
end

-- The same the short way. Returns whether it could be.
local function give_plain(operation, name, sort, state)
  local shown, bytes = plain.claim(operation, name, sort, state)
  if shown then
    claim.bytes = claim.bytes - bytes
    note_end(operation.key, state.lock_ms)
    state.items[#state.items + 1] = { sort, shown }
  end
  return shown
end

local function bury(record, state)
  local refusal, work, bytes = due.bury(record)
  state.work = state.work - work
  if refusal then
    note_end(record.key, tonumber(record.fields.lu))
  else
    state.buried = (state.buried or 0) + 1
  end
  -- However many claims there are: what is told takes the store longer than what is given.
  claim.bytes = bytes > 0 and clock.late(16, GIVING_SECONDS) and 0 or claim.bytes - bytes
end

-- One entry of a set: given, buried, or passed over.
local function visit(status, sort, operation, state)
  local name = operation.key .. ':' .. sort
  state.examined = state.examined + 1
  if item.ahead[name] then
    state.work = state.work - 1 -- this call has given it already, or settled it
    state.lost = (state.lost or 0) + 1
    return
  elseif state.plain and status == 'not_started' and give_plain(operation, name, sort, state) then
    return
  end
  if #operation.where > 0 then
    local held, work = where.holds(item.prefix .. name, sort, operation.where)
    state.work = state.work - work
    if not held then
      return
    end
  end
  local record = item.load(operation.key, sort)
  if not record.exists or record.fields.s ~= status or lock.live(record.fields) then
    state.work = state.work - 1
    state.lost = (state.lost or 0) + 1
  elseif status == 'started' and lock.exhausted(record) then
    bury(record, state)
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
  return reached and reached[1] == status and index.rank(name, reached[2], reached[3]) or 0
end

local function goes_on(operation, state)
  local wants = #state.items < operation.limit and not state.refusal
  local seconds = #operation.where == 0 and GIVING_SECONDS or nil
  return wants and state.work > 0 and claim.bytes > 0 and not clock.late(1, seconds)
end

-- Some entries, with their scores where those matter: to write them as text is about a tenth of what a claim costs.
local function page_of(name, rank, count, latest)
  if latest == math.huge then
    return redis.call('ZRANGE', name, rank, rank + count - 1), nil
  end
  local flat, page, scores = redis.call('ZRANGE', name, rank, rank + count - 1, 'WITHSCORES'), {}, {}
  for i = 1, #flat, 2 do
    page[#page + 1], scores[#scores + 1] = flat[i], flat[i + 1]
  end
  return page, scores
end

-- Visit the entries of a status up to a score, while the claim goes on. Returns whether to the end.
local function pass_along(status, latest, operation, state)
  if index.empty(operation.key, status) then
    return true
  end
  local name = index.name(operation.key, status)
  local rank, ended = first_rank(name, status, operation), false
  while not ended and goes_on(operation, state) do
    local count = math.min(100, #operation.where > 0 and math.ceil(state.work) or operation.limit - #state.items)
    local page, scores = page_of(name, rank, count, latest)
    ended = #page < count
    local passed = nil
    for i, sort in ipairs(page) do
      if scores and tonumber(scores[i]) > latest then
        ended = true
        break
      elseif not goes_on(operation, state) then
        ended = false
        break
      end
      visit(status, sort, operation, state)
      if not state.refusal then
        rank, passed = rank + 1, i
      end
    end
    if passed then
      local score = scores and scores[passed] or redis.call('ZSCORE', name, page[passed])
      state.after = score and { status, score, page[passed] } or state.after
    end
  end
  claim.places[status .. operation.kind] = rank
  return ended
end

-- The declared index by which a claim finds its items: the one with the fewest within the filters, if those are fewer than
-- there are in line; or the one that it goes on with.
local function choose_index(operation)
  local chosen, least = nil, redis.call('ZCARD', index.name(operation.key, 'not_started'))
  for _, walk in ipairs(operation.walks) do
    if operation.after and operation.after[1] == walk.label then
      return walk
    elseif declared.complete(operation.key, walk.label) then
      local size = range.size(index.name(operation.key, walk.label), walk)
      if size < least then
        chosen, least = walk, size
      end
    end
  end
  return not (operation.after and PHASES[operation.after[1]]) and chosen
end

-- Once for all claims of a kind.
local function index_for(operation)
  if not operation.walks then
    return nil
  end
  local kind = operation.kind
  if claim.walks[kind] == nil then
    claim.walks[kind] = choose_index(operation) or false
  end
  return claim.walks[kind]
end

-- Where an item stands among those to be claimed: phase and score; nil if it can't be.
local function standing(key, sort)
  local id = key .. ':' .. sort
  local fields = item.view[id] and item.view[id].fields
  if not fields then
    local raws = redis.pcall('HMGET', partition .. ':i:' .. id, 's', 'lu')
    fields = { s = raws[1], lu = raws[2] }
  end
  if fields.s == 'started' and not lock.live(fields) then
    return PHASES.started, tonumber(fields.lu or 0)
  elseif fields.s == 'not_started' then
    return PHASES.not_started, tonumber(redis.call('ZSCORE', index.name(key, 'not_started'), sort) or 0)
  end
  return nil
end

local function stands_before(one, other)
  if one.phase ~= other.phase then
    return one.phase < other.phase
  elseif one.score ~= other.score then
    return one.score < other.score
  end
  return text.compare(one.sort, other.sort) < 0
end

-- Those behind a place in an index that can be claimed, as far as this much work reaches. Returns where it ended early,
-- or nil.
local function gather(walk, after, operation, state, work)
  local name, found, place = index.name(operation.key, walk.label), {}, after
  local bounds = { lex = walk.lex, all = walk.all, any = walk.any, after = { after[2], after[3] } }
  for first, last in range.parts(name, bounds) do
    for score, member in range.entries(name, first, last) do
      if work <= 0 or clock.late() then
        return found, place
      end
      local sort = declared.sort_of(member)
      local phase, order = standing(operation.key, sort)
      if phase then
        table.insert(found, { phase = phase, score = order, sort = sort })
      end
      work, place = work - 1, { walk.label, score, member }
      state.work, state.examined = state.work - 1, state.examined + 1
    end
  end
  return found, nil
end

-- What claims of one kind take from: gathered once, by the work of them all, in the order of the line. One that goes on from
-- an earlier call gathers for itself.
local function pool_for(walk, operation, state)
  local after, kind = operation.after, operation.kind
  local goes_on_here = after and after[1] == walk.label
  local pool = not goes_on_here and claim.pools[kind]
  if not pool then
    pool = { start = goes_on_here and after or { walk.label, '-inf', '' }, next = 1 }
    local claims = goes_on_here and 1 or claim.of_kind[kind]
    pool.found, pool.place = gather(walk, pool.start, operation, state, state.work * claims)
    table.sort(pool.found, stands_before)
    if not goes_on_here then
      claim.pools[kind] = pool
    end
  end
  return pool
end

local function take_by_index(walk, operation, state)
  local pool = pool_for(walk, operation, state)
  local each = pool.found[pool.next]
  while each do
    if #state.items == operation.limit or state.refusal or claim.bytes <= 0 then
      state.after = pool.start
      return false
    end
    visit(each.phase == PHASES.started and 'started' or 'not_started', each.sort, operation, state)
    pool.next = pool.next + 1
    each = pool.found[pool.next]
  end
  state.after = pool.place
  return not pool.place
end

local function take_in_line(operation, state)
  local reached = claim.furthest[operation.kind]
  local ended = (reached and reached[1] == 'not_started') or pass_along('started', clock.ms, operation, state)
  return ended and pass_along('not_started', math.huge, operation, state)
end

-- What is left of the call's work is shared evenly among the claims still to come.
local function take(operation, state)
  local share = math.min(operation.front and FRONT_WORK or math.huge, math.max(LEAST_WORK, claim.work / claim.left))
  state.work = share
  local by = index_for(operation)
  local ended
  if by then
    ended = take_by_index(by, operation, state)
  else
    ended = take_in_line(operation, state)
  end
  claim.work, claim.left = claim.work - (share - state.work), claim.left - 1
  return ended
end

-- When there may be more for a claim that got less than it asked for.
local function next_ms(key)
  return clock.earlier(due.next_ms(key), claim.ends[key])
end

-- When the first slot of a bound is free at the latest.
local function expiry(note)
  return note and #note.sorts > 0 and note.until_ms or nil
end

function claim.run(operation)
  local key = operation.key
  if not (index.sound(key, 'scheduled', 'started') and index.sound(key, 'not_started', 'failed') and declared.sound(key)) then
    return { outcome.corrupt, false, false }
  end
  local note, free, barred
  if operation.in_flight then
    free, note, barred = flight.free(operation)
    if not free then
      return { outcome.corrupt, false, false }
    end
    operation.limit = math.min(operation.limit, free)
  end
  local paused = settings.of(key).paused and true or nil
  if paused or free == 0 then
    local held = note and note.sorts
    return { outcome.ok, false, { items = {}, paused = paused, held = held, next_ms = expiry(note), barred = barred } }
  end
  local state = { items = {}, examined = 0, after = operation.after, plain = plain.claims(operation) }
  state.lock_ms = clock.ms + (operation.lock_ms or settings.number(key, 'lock_ms'))
  state.lock_end = clock.text(state.lock_ms)
  local promotable = promote(operation.key)
  local ended = take(operation, state)
  if state.refusal and #state.items == 0 then
    return { state.refusal, false, false }
  end
  local full = #state.items == operation.limit
  local extra = { items = state.items, expired = state.expired, buried = state.buried, lost = state.lost, left = state.left }
  -- A claim of nothing stands for one that was held back and given up: it may have been let through.
  if #state.items > 0 or operation.limit == 0 then
    wake.pass_on(key)
  end
  if #state.items > 0 then
    extra.given = { s = 'started', ua = clock.now, sa = clock.now, w = operation.worker, lu = state.lock_end }
  end
  if note then
    extra.held, extra.next_ms = note.sorts, expiry(note)
  end
  if not full and not state.refusal then
    extra.more, extra.examined = promotable or not ended, state.examined
    extra.next_ms = next_ms(key)
    extra.empty = #operation.where > 0 and index.empty(key, 'not_started') or nil
  end
  if not ended and (not full or #operation.where > 0) then
    extra.after = state.after
  end
  return { outcome.ok, false, extra }
end
