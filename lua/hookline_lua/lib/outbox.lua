-- The outbox: events written in the same step as the change that they tell of.
-- use: outcome clock settings index triggers turns

local outbox = {}

function outbox.reset()
  outbox.events, outbox.size, outbox.name, outbox.events_max = {}, nil, partition .. ':outbox', request[2]
end

-- Why there can be no further event, as the word of a refusal; or nil.
function outbox.refusal()
  if outbox.size == nil then
    outbox.size = index.probe('XLEN', outbox.name) or false
  end
  if not outbox.size then
    return outcome.corrupt
  elseif outbox.size + #outbox.events >= outbox.events_max then
    return outcome.outbox_full
  end
  return nil
end

-- What a receiver is not told of: it changes with every change, or is nobody's business.
local UNTOLD = { v = true, ua = true, ca = true, tk = true, at = true }

-- An empty map: cmsgpack takes an empty table for a list.
local EMPTY = '\128'

-- Whether an event tells of a field that had the value `old` (or false).
local function tells(field, old, value)
  if UNTOLD[field] or old == (value or false) then
    return false
  end
  if field ~= 't' then
    return true
  end
  local fit, seen = pcall(triggers.visible, old)
  return not fit or seen ~= triggers.visible(value)
end

-- `status:<word>` where the item has come into this status, else nil.
local function status_event(record, event)
  local status, before = record.fields.s, record.delta and record.delta.s
  local came = event == 'created' and not record.delta or (before ~= nil and before ~= status)
  return status and event ~= 'deleted' and came and 'status:' .. status or nil
end

-- Note an event of what the operation changed. Returns the word of a refusal, or nil.
function outbox.add(record, event, operation, token)
  if operation.triggers == 'off' then
    return nil
  elseif event == 'updated' and not (record.delta and record.delta.v) then
    return nil -- a lock was prolonged: no new version, no event
  end
  local own, of_key = operation.triggers ~= 'key' and record.fields.t, settings.of(record.key).t
  if not (own or of_key) then
    return nil
  end
  local change = { event = event, fields = record.fields, sort = record.sort, decoded = {} }
  change.status = status_event(record, event)
  local wanted, ordered = triggers.matching(own, of_key, change)
  if not wanted then
    record.corrupt = wanted == false
    return record.corrupt and outcome.corrupt or nil
  end
  local before, told = {}, event == 'deleted'
  if event == 'created' and not record.delta then
    told = true
    for field in pairs(record.fields) do
      if not UNTOLD[field] then
        before[field] = false
      end
    end
  end
  for field, old in pairs(record.delta or {}) do
    if tells(field, old, record.fields[field]) then
      before[field] = old
      told = true
    end
  end
  if not told then
    return nil
  end
  local refusal = outbox.refusal()
  if refusal then
    return refusal
  end
  local lines = {}
  for place, url in ipairs(ordered) do
    lines[place] = turns.name(record.key, record.sort, url)
    if not index.probe('LLEN', lines[place]) then
      return outcome.corrupt
    end
  end
  local after = {}
  for field, value in pairs(record.fields) do
    if field ~= 'tk' then
      after[field] = value
    end
  end
  local entry = {
    'event', event, 'key', record.key, 'sort', record.sort, 'at', clock.now, 'after', cmsgpack.pack(after),
    'before', next(before) and cmsgpack.pack(before) or EMPTY, 'triggers', wanted, 'token', token or '', lines = lines,
  }
  if settings.of(record.key).record_deliveries then
    entry[#entry + 1] = 'record'
    entry[#entry + 1] = '1'
  end
  if operation.trace then
    entry[#entry + 1] = 'trace'
    entry[#entry + 1] = operation.trace
  end
  table.insert(outbox.events, entry)
  return nil
end

function outbox.flush()
  for _, event in ipairs(outbox.events) do
    local id = redis.call('XADD', outbox.name, '*', unpack(event))
    for _, line in ipairs(event.lines) do
      redis.call('RPUSH', line, id)
    end
  end
  return #outbox.events > 0
end
