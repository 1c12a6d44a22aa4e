#!lua flags=allow-oom
-- End or prolong claims, each shown by its token; and claim again in the same call.
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome clock settings declared item lock call flight change plain claim

local settle = {}

function settle.complete(record, operation)
  change.write(record, operation)
  lock.leave(record)
  item.set(record, 's', 'completed')
  if not record.fields.da then
    item.set(record, 'da', clock.now)
  end
  lock.advance(record)
end

-- How long a failed item waits: `list` has a delay for each attempt, the last for all that follow; `exponential` doubles
-- from the first to the longest, and the caller brings the jitter (0.8 to 1.2).
local function backoff(record, operation)
  if operation.delay_ms then
    return operation.delay_ms
  end
  local rule = operation.backoff or settings.of(record.key).backoff or settings.backoff
  local attempts, delays = math.max(1, tonumber(record.fields.a or 1)), {}
  for ms in string.gmatch(rule, '%d+') do
    delays[#delays + 1] = tonumber(ms)
  end
  if string.sub(rule, 1, 4) == 'list' then
    return delays[math.min(attempts, #delays)]
  end
  return math.floor(math.min(delays[2], delays[1] * 2 ^ math.min(attempts - 1, 40)) * (operation.jitter or 1))
end

function settle.fail(record, operation, place)
  change.write(record, operation)
  lock.tally(record, 'fa')
  item.set(record, 'le', operation.error)
  if lock.exhausted(record) then
    lock.leave(record)
    item.set(record, 's', 'failed')
  else
    local delay = backoff(record, operation)
    item.set(record, 'sd', clock.text(clock.ms + delay))
    lock.wait(record, clock.ms + delay, place)
  end
  lock.advance(record)
end

function settle.release(record, operation, place)
  local delay = operation.delay_ms or 0
  item.set(record, 'a', clock.text(math.max(0, tonumber(record.fields.a or 1) - 1)))
  lock.tally(record, 're')
  if delay > 0 then
    item.set(record, 'sd', clock.text(clock.ms + delay))
  end
  lock.wait(record, clock.ms + delay, place)
  lock.advance(record)
end

function settle.extend(record, operation)
  local lock_ms = operation.lock_ms or settings.number(record.key, 'lock_ms')
  item.set(record, 'lu', clock.text(clock.ms + lock_ms))
  flight.outlast(record)
  lock.shorten(record)
end

-- What these verbs need of an item that fires nothing and is in no declared index.
local NEEDED = { complete = { 'v', 's', 'tk', 'lu', 'da', 'ua' }, extend = { 'v', 's', 'tk', 'lu' } }

-- The same, with what the operation itself names; nil where all is needed.
local function needed(operation)
  local names = NEEDED[operation.verb]
  if not names or (operation.triggers or 'on') == 'on' or settings.of(operation.key).t or #declared.of(operation.key) > 0 then
    return nil
  elseif not next(operation.set) and not operation.unset and not operation.now then
    return names
  end
  local more = { unpack(names) }
  for field in pairs(operation.set) do
    more[#more + 1] = field
  end
  for _, fields in ipairs({ operation.unset or {}, operation.now or {} }) do
    for _, field in ipairs(fields) do
      more[#more + 1] = field
    end
  end
  return more
end

-- Whether this call has ended claims that its own next claims must see.
local settled

local function run(operation, place)
  if operation.verb == 'claim' then
    if settled then
      claim.flush()
      settled = false
    end
    return claim.run(operation)
  end
  settled = true
  local done = plain.complete(operation)
  if done then
    return done
  end
  local record, refusal = change.find(operation, needed(operation))
  if not record then
    return refusal
  end
  settle[operation.verb](record, operation, place)
  return call.commit(record, operation, 'updated') or { outcome.ok, call.show_state(record), false }
end

return function()
  settled = false
  return call.run(run)
end
