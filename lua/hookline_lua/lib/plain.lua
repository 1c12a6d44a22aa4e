-- What most calls do, the short way: creates, claims from the line and completions of items that fire nothing, of keys
-- without indexes of their own. Each does what the long way does (change.create, claim, settle.complete), which model and
-- conformance tests hold against each other; here hashes are written at once, and only the moves of the indexes wait for
-- the end of the call. Nil from any of them says that the long way is needed.
-- use: outcome clock settings index declared item lock

local plain = {}

-- A whole number and one, as text, or nil if it is none; within a call most versions are alike, and so are most attempts.
local successors

function plain.reset()
  plain.created, plain.completed, plain.keys = {}, {}, { create = {}, claim = {}, complete = {} }
  successors = {}
end

local function successor(number)
  local known = successors[number]
  if not known then
    known = tonumber(number) and clock.text(number + 1)
    successors[number] = known
  end
  return known
end

-- Whether a key asks for nothing beyond that, and the sets between which the verb moves its items can be written.
local function is_plain(verb, key, before, after)
  local known = plain.keys[verb][key]
  if known == nil then
    known = not settings.of(key).t and #declared.of(key) == 0 and index.sound(key, before, after) and true or false
    plain.keys[verb][key] = known
  end
  return known
end

-- The outcome of a create. The caller has sent all that it knows of the item, so most of them share one.
local function created(in_line)
  local answer = plain.created[in_line]
  if not answer then
    answer = { outcome.ok, { v = '1', ca = clock.now, ua = clock.now, at = in_line and clock.now or nil }, false, true }
    plain.created[in_line] = answer
  end
  return answer
end

-- The ids of items to be made, which then count as written; nil if one of them is there, or known to this call.
local function reserve(key, flat, width)
  local names, ids, n = {}, {}, 0
  for i = 1, #flat, width do
    local name = key .. ':' .. flat[i]
    if item.view[name] or item.ahead[name] then
      break
    end
    n = n + 1
    names[n], ids[n] = name, item.prefix .. name
    item.ahead[name] = true
  end
  if n * width == #flat and redis.call('EXISTS', unpack(ids)) == 0 then
    return ids
  end
  for _, name in ipairs(names) do
    item.ahead[name] = nil
  end
  return nil
end

-- Creates of which the caller knows that they may go this way: `flat` has of each its sortField and its fields, `width`
-- values in all; `line` is their priority if they wait. All or none are made -> the outcome that they share.
function plain.create(shared, flat, place)
  local key, line, width = shared.key, shared.line, shared.width
  if not is_plain('create', key, nil, 'not_started') or settings.of(key).length_max then
    return nil
  end
  local ids = reserve(key, flat, width)
  if not ids then
    return nil
  end
  local now, all, changed = clock.now, index.added(key, ''), item.changed
  local waiting = line and index.added(key, 'not_started')
  local ready, place_in_ms = line and index.place(line, clock.ms, 0), clock.micros + place - 1
  for n, id in ipairs(ids) do
    local first = (n - 1) * width + 1
    local sort = flat[first]
    if line then
      redis.call('HSET', id, 'v', '1', 'ca', now, 'ua', now, 'at', now, unpack(flat, first + 1, first + width - 1))
      local size = #waiting
      waiting[size + 1], waiting[size + 2] = ready + math.min(999, place_in_ms + n), sort
    else
      redis.call('HSET', id, 'v', '1', 'ca', now, 'ua', now, unpack(flat, first + 1, first + width - 1))
    end
    local size = #all
    all[size + 1], all[size + 2] = 0, sort
    changed[#changed + 1] = id
  end
  return created(line ~= nil)
end

-- Whether a claim may give the short way.
function plain.claims(operation)
  return #operation.where == 0 and operation.triggers ~= 'on' and not operation.in_flight and is_plain('claim', operation.key, 'not_started', 'started')
end

-- A name takes no more than so much in an answer, about.
local NAME_BYTES = 16

-- Give an item that waits in line to the worker -> what is shown of it, field after field, but for what the claim gives to
-- each of its items alike; and its bytes.
function plain.claim(operation, name, sort, state)
  local key, now, id = operation.key, clock.now, item.prefix .. name
  if item.view[name] then
    return nil
  end
  local shown, version, status, attempts = redis.pcall('HGETALL', id), nil, nil, nil
  local n = #shown
  local bytes = n * NAME_BYTES
  for i = 1, n, 2 do
    local field = shown[i]
    bytes = bytes + #shown[i + 1]
    if field == 'v' then
      version = i + 1
    elseif field == 's' then
      status = i + 1
    elseif field == 'a' then
      attempts = i + 1
    elseif field == 'tk' or field == 'lu' or field == 'w' or field == 'sa' then
      return nil
    end
  end
  if not (version and attempts) or shown[status] ~= 'not_started' then
    return nil
  end
  local v, a = successor(shown[version]), successor(shown[attempts])
  if not (v and a) then
    return nil
  end
  local token = v .. '.' .. lock.mark(operation.nonce)
  redis.call('HSET', id, 'v', v, 's', 'started', 'ua', now, 'a', a, 'w', operation.worker, 'sa', now, 'lu', state.lock_end,
    'tk', token)
  index.remove(key, 'not_started', sort)
  index.add(key, 'started', state.lock_ms, sort)
  item.written(name, id)
  shown[version], shown[attempts], shown[n + 1], shown[n + 2] = v, a, 'tk', token
  return shown, bytes
end

-- The outcome of a completion, which needs to know of the item no more than its token. Who has one has it started.
function plain.complete(operation)
  local key, sort, set = operation.key, operation.sort, operation.set
  local name = key .. ':' .. sort
  if operation.verb ~= 'complete' or operation.triggers == 'on' or operation.unset or operation.now then
    return nil
  elseif item.view[name] or item.ahead[name] then
    return nil -- what waits for the indexes would be moved twice at once
  elseif set.da or not is_plain('complete', key, 'started', 'completed') then
    return nil
  end
  local id = item.prefix .. name
  local known = redis.pcall('HMGET', id, 'tk', 'v', 'da')
  if known.err or not known[1] or known[1] ~= operation.token or known[3] then
    return nil
  elseif next(set) and not item.roomy(id) then
    return nil
  end
  local v, now = known[2] and successor(known[2]), clock.now
  if not v then
    return nil
  end
  local flat, n = { 'v', v, 's', 'completed', 'ua', now, 'da', now, nil, nil, nil, nil, nil, nil, nil, nil }, 8
  for field, value in pairs(set) do
    flat[n + 1], flat[n + 2] = field, value
    n = n + 2
  end
  redis.call('HSET', id, unpack(flat))
  redis.call('HDEL', id, 'tk', 'lu')
  index.remove(key, 'started', sort)
  index.add(key, 'completed', clock.ms, sort)
  item.written(name, id)
  local answer = plain.completed[v]
  if not answer then
    answer = { outcome.ok, { v = v, s = 'completed' }, false }
    plain.completed[v] = answer
  end
  return answer
end
