-- How an update changes an item, the update that claims included.
-- use: outcome clock settings index item lock call flight triggers where

local change = {}

local NONE = {}
local TERMINAL = { completed = true, failed = true, cancelled = true }
local TIMES = { lu = true, sd = true, sa = true, da = true }
-- What a replacement removes besides the user's own fields, unless it names them.
local REPLACED = { s = true, w = true, sa = true, da = true, ma = true, p = true, le = true, sd = true, t = true,
  a = true, cr = true, fa = true, re = true }

-- Put what the operation names into the view.
function change.write(record, operation)
  if operation.replace then
    for field in pairs(record.fields) do
      if operation.set[field] == nil and (REPLACED[field] or string.sub(field, 1, 2) == 'm:') then
        item.set(record, field, nil)
      end
    end
  end
  for field, value in pairs(operation.set) do
    if field == 't' then
      value = triggers.merge(value, record.fields.t)
    elseif TIMES[field] then
      value = clock.resolve(value)
    end
    item.set(record, field, value)
  end
  for _, field in ipairs(operation.unset or NONE) do
    item.set(record, field, nil)
  end
  for _, field in ipairs(operation.now or NONE) do
    item.set(record, field, cmsgpack.pack(clock.rfc3339(clock.ms)))
  end
end

-- The refusal that an update of this item meets before its status matters, or nil.
function change.refusal(record, operation)
  local fields = record.fields
  local version = tonumber(fields.v)
  if operation.match and operation.match ~= version then
    return outcome.precondition_failed
  elseif operation.expect and operation.expect ~= version then
    return outcome.version_conflict
  elseif operation.only_if and not where.matches(fields, record.sort, operation.only_if) then
    return outcome.precondition_failed
  elseif operation.token and operation.token ~= fields.tk then
    lock.count(record.key, 'lost_locks')
    return fields.s == 'cancelled' and outcome.cancelled or outcome.stale_token
  end
  return nil
end

-- The item of an operation, opened for it; or the outcome that says why it is not to be touched.
function change.find(operation, names)
  local record, missing = call.find(operation, names)
  if not record then
    return nil, missing
  end
  local refusal = change.refusal(record, operation)
  if refusal then
    return nil, call.refuse(refusal, record)
  end
  item.open(record)
  return record
end

-- The refusal of a claim by update, or nil.
local function claim_refusal(record, operation)
  local fields = record.fields
  if settings.of(record.key).paused then
    return outcome.paused
  elseif lock.live(fields) then
    return outcome.locked
  elseif fields.s == 'started' and lock.exhausted(record) then
    return outcome.not_claimable
  elseif operation.expect then
    return nil
  elseif TERMINAL[fields.s] or (fields.s == 'scheduled' and tonumber(fields.at) > clock.ms) then
    return outcome.not_claimable
  end
  return nil
end

local function holds(fields, operation)
  if fields.s ~= 'started' then
    return false
  elseif operation.token then
    return operation.token == fields.tk
  end
  return operation.expect and lock.live(fields) and fields.w and operation.set.w == fields.w
end

-- Write a claim: with a lock in any case, and the fields named stay, whatever it says of them.
local function write_claim(record, operation, stay)
  local stays = {}
  for _, field in ipairs(stay) do
    stays[field] = record.fields[field]
  end
  item.set(record, 'lu', nil)
  change.write(record, operation)
  for _, field in ipairs(stay) do
    item.set(record, field, stays[field])
  end
  item.set(record, 'lu', record.fields.lu or lock.default_until(record.key))
end

-- The holder prolongs its lock. Only what it changes besides makes a new version.
local function extend(record, operation)
  write_claim(record, operation, { 'w', 'sa', 'a', 'cr', 'fa', 're' })
  flight.outlast(record)
  lock.shorten(record)
  for field, old in pairs(record.delta) do
    if field ~= 'lu' and old ~= (record.fields[field] or false) then
      lock.advance(record)
      return
    end
  end
end

local function take(record, operation)
  if record.fields.s == 'started' then
    lock.tally(record, 'cr')
  end
  item.set(record, 'w', nil)
  item.set(record, 'sa', nil)
  if TERMINAL[record.fields.s] then
    item.set(record, 'da', nil)
  end
  write_claim(record, operation, { 'a', 'cr', 'fa', 're' })
  item.set(record, 'sa', record.fields.sa or clock.now)
  lock.take(record, operation.nonce)
  return record.fields.tk
end

-- Bring the engine's own fields in line with the status that the item now has.
local function arrive(record, operation, from, place)
  local fields, sent = record.fields, operation.set
  local to = fields.s
  if to == 'not_started' or to == 'scheduled' then
    if sent.s == 'not_started' and not sent.sd and tonumber(fields.sd or 0) > clock.ms then
      item.set(record, 'sd', nil)
    end
    if TERMINAL[from] and not sent.a then
      item.set(record, 'a', '0')
    end
    if TERMINAL[from] and not sent.da then
      item.set(record, 'da', nil)
    end
    if not fields.a then
      item.set(record, 'a', '0')
    end
    if from ~= to or sent.sd or to == 'scheduled' and not fields.sd then
      lock.wait(record, tonumber(fields.sd or 0), place)
    else
      lock.idle(record)
    end
  elseif to ~= 'started' then
    lock.leave(record)
    if to == 'completed' and not fields.da then
      item.set(record, 'da', clock.now)
    end
  end
end

-- Whether an update meddles with a claim that is not its own: it names another worker; or, of a live lock, worker or
-- end, and shows neither the token nor the version. An update to another status is no meddling: it ends the claim.
local function meddles(fields, operation)
  if fields.s ~= 'started' then
    return false
  elseif operation.set.w and operation.set.w ~= fields.w then
    return true
  elseif operation.token or operation.expect or operation.set.s or operation.replace or not lock.live(fields) then
    return false
  end
  local touched = operation.set.lu ~= nil
  for _, field in ipairs(operation.unset or NONE) do
    if field == 's' then
      return false
    end
    touched = touched or field == 'lu' or field == 'w'
  end
  return touched
end

local function warnings(record, operation)
  local set, fields = operation.set, record.fields
  if not (set.lu or set.sd) then
    return false
  end
  local found = {}
  if set.lu and fields.s ~= 'started' then
    found[1] = 'lock_ignored'
  elseif set.lu and tonumber(fields.lu) <= clock.ms then
    found[1] = 'lock_past'
  end
  if set.sd and not fields.s then
    found[#found + 1] = 'never_due'
  end
  return #found > 0 and { warnings = found }
end

function change.update(record, operation, place)
  local refusal, claims = change.refusal(record, operation), operation.set.s == 'started'
  if refusal then
    if claims and not operation.token then -- another was faster, and the version or the status is not what it was
      lock.count(record.key, 'refused_claims')
    end
    return call.refuse(refusal, record)
  end
  item.open(record)
  local fields, token = record.fields, nil
  local from = fields.s
  if claims and holds(fields, operation) then
    extend(record, operation)
  elseif claims then
    refusal = claim_refusal(record, operation)
    if refusal then
      lock.count(record.key, 'refused_claims')
      return call.refuse(refusal, record)
    end
    token = take(record, operation)
  elseif meddles(fields, operation) then
    return call.refuse(outcome.locked, record)
  else
    change.write(record, operation)
    arrive(record, operation, from, place)
    lock.advance(record)
  end
  local refused = call.commit(record, operation, 'updated', token)
  if refused then
    return refused
  elseif token and from == 'started' then
    lock.count(record.key, 'expired_locks')
  end
  return { outcome.ok, call.show(record, operation), warnings(record, operation) }
end

-- Whether a key may hold one more item, those made before in this call counted.
local function has_room(key)
  local size = (index.set(key, '').size or 0) + (item.growth[key] or 0)
  return size < settings.number(key, 'length_max')
end

function change.create(record, operation, place)
  if not has_room(record.key) then
    return { outcome.key_full, false, false }
  end
  item.begin(record)
  local now = clock.now
  item.set(record, 'c', '\192')
  change.write(record, operation)
  item.set(record, 'v', '1')
  item.set(record, 'ca', now)
  item.set(record, 'ua', now)
  local token
  if record.fields.s == 'started' then
    item.set(record, 'v', '0')
    item.set(record, 'lu', record.fields.lu or lock.default_until(record.key))
    item.set(record, 'sa', record.fields.sa or now)
    lock.take(record, operation.nonce)
    token = record.fields.tk
  else
    arrive(record, operation, nil, place)
  end
  local refused = call.commit(record, operation, 'created', token)
  if refused then
    return refused
  end
  item.grow(record.key, 1)
  return { outcome.ok, call.show(record, operation), warnings(record, operation), true }
end
