-- Claims: who holds an item until when, under which token; and the counts of what went wrong.
-- use: clock settings index item

local lock = {}

-- As long as a count was not raised: 30 days.
local COUNTS_KEPT = 2592000000

function lock.reset()
  lock.counts, lock.marks = {}, {}
end

function lock.live(fields)
  return fields.s == 'started' and tonumber(fields.lu or 0) > clock.ms
end

-- Whether one more attempt would exceed the item's or its key's limit; 0 is no limit.
function lock.exhausted(record)
  local most = tonumber(record.fields.ma) or settings.number(record.key, 'max_attempts')
  return most > 0 and tonumber(record.fields.a or 0) >= most
end

function lock.default_until(key)
  return clock.text(clock.ms + settings.number(key, 'lock_ms'))
end

-- One accepted change: version and time of update.
function lock.advance(record)
  item.set(record, 'v', clock.text(tonumber(record.fields.v) + 1))
  item.set(record, 'ua', clock.now)
end

-- What follows the version in a token. The nonce of the claim keeps tokens apart even where a failover issues a version
-- twice; a number, those of one claim.
function lock.mark(nonce)
  local number = (lock.marks[nonce] or 0) + 1
  lock.marks[nonce] = number
  return nonce .. '-' .. number
end

-- Whether a token is of the claim with this nonce.
function lock.marked(token, nonce)
  return string.find(token, '.' .. nonce .. '-', 1, true) ~= nil
end

-- Give the item to a worker.
function lock.take(record, nonce)
  lock.advance(record)
  item.set(record, 's', 'started')
  item.set(record, 'a', clock.text(tonumber(record.fields.a or 0) + 1))
  item.set(record, 'tk', record.fields.v .. '.' .. lock.mark(nonce))
end

-- End whatever claim there is; the next show of its token is stale.
function lock.leave(record)
  item.set(record, 'tk', nil)
  item.set(record, 'lu', nil)
end

-- Nobody has an item that waits, whatever an update says.
function lock.idle(record)
  lock.leave(record)
  item.set(record, 'w', nil)
  item.set(record, 'sa', nil)
end

-- Put the item in line: now, or when it is ready.
function lock.wait(record, ready_ms, place)
  lock.idle(record)
  local later = ready_ms > clock.ms
  item.set(record, 's', later and 'scheduled' or 'not_started')
  item.set(record, 'at', later and clock.text(ready_ms) or clock.now)
  record.place = later and 0 or clock.micros + place
end

-- Count on the item how its claims ended without success: `cr` by a lock that expired, `fa` reported, `re` given back.
function lock.tally(record, field)
  item.set(record, field, clock.text(tonumber(record.fields[field] or 0) + 1))
end

-- Expired once too often: kept as a dead letter.
function lock.bury(record)
  lock.tally(record, 'cr')
  lock.leave(record)
  item.set(record, 's', 'failed')
  item.set(record, 'le', 'lock expired')
  lock.advance(record)
end

-- Refused claims and lost locks are counted per key: the one thing that a refusal writes.
function lock.count(key, name)
  local counts = lock.counts[key] or {}
  counts[name] = (counts[name] or 0) + 1
  lock.counts[key] = counts
end

-- Of a key that is not used any more they go away.
function lock.flush()
  for key, counts in pairs(lock.counts) do
    local id = partition .. ':n:' .. key
    for name, count in pairs(counts) do
      redis.pcall('HINCRBY', id, name, count)
    end
    redis.pcall('PEXPIRE', id, COUNTS_KEPT)
  end
end

-- Who waits must look anew where a lock ends sooner than was known.
function lock.shorten(record)
  local before = record.delta.lu
  if before and tonumber(record.fields.lu) < tonumber(before) then
    index.ready[record.key] = 'scheduled'
  end
end
