-- The outbox: events written in the same step as the change that they tell of.
-- use: outcome clock index

local outbox = { events = {}, name = partition .. ':outbox', events_max = request[2] }

-- What a receiver is not told of: it changes with every change, or is nobody's business.
local UNTOLD = { v = true, ua = true, ca = true, tk = true, at = true }

-- An empty map: cmsgpack takes an empty table for a list.
local EMPTY = '\128'

-- The item's triggers that want this event, packed; nil where there are none.
local function matching(packed, event)
  if not packed then
    return nil
  end
  local wanted = {}
  for _, trigger in ipairs(cmsgpack.unpack(packed)) do
    for _, name in ipairs(trigger[3]) do
      if name == event then
        wanted[#wanted + 1] = trigger
      end
    end
  end
  return #wanted > 0 and cmsgpack.pack(wanted) or nil
end

-- What a reader sees of triggers: a key is sealed differently each time that it is written.
local function visible(packed)
  local triggers = packed and cmsgpack.unpack(packed) or {}
  for _, trigger in ipairs(triggers) do
    trigger[2] = trigger[2] ~= ''
  end
  return cmsgpack.pack(triggers)
end

-- Whether an event tells of a field that had the value `old` (or false).
local function tells(field, old, value)
  if UNTOLD[field] or old == (value or false) then
    return false
  end
  return field ~= 't' or visible(old) ~= visible(value)
end

-- Note an event of what the operation changed. Returns the word of a refusal, or nil.
function outbox.add(record, event, operation, token)
  if (operation.triggers or 'on') ~= 'on' then
    return nil
  elseif event == 'updated' and not record.delta.v then
    return nil -- a lock was prolonged: no new version, no event
  end
  local triggers = matching(record.fields.t, event)
  if not triggers then
    return nil
  end
  local before, told = {}, event == 'deleted'
  for field, old in pairs(record.delta) do
    if tells(field, old, record.fields[field]) then
      before[field] = old
      told = true
    end
  end
  if not told then
    return nil
  end
  if outbox.size == nil then
    outbox.size = index.probe('XLEN', outbox.name) or false
  end
  if not outbox.size then
    return outcome.corrupt
  elseif outbox.size + #outbox.events >= outbox.events_max then
    return outcome.outbox_full
  end
  local after = {}
  for field, value in pairs(record.fields) do
    if field ~= 'tk' then
      after[field] = value
    end
  end
  table.insert(outbox.events, {
    'event', event, 'key', record.key, 'sort', record.sort, 'at', clock.text(clock.ms), 'after', cmsgpack.pack(after),
    'before', next(before) and cmsgpack.pack(before) or EMPTY, 'triggers', triggers, 'token', token or '',
  })
  return nil
end

function outbox.flush()
  for _, event in ipairs(outbox.events) do
    redis.call('XADD', outbox.name, '*', unpack(event))
  end
  return #outbox.events > 0
end
